"""An owner that is a container, and goes through its own children, does not meet those that lifting gave it."""

import copy

import pytest
import torch
from kernels import window_kernels
from torch import nn
from torch.nn import functional as F

from poolswap.errors import CheckError
from poolswap.surgery.lift import LiftError
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 12, 12)


class Chain(nn.Sequential):
    def forward(self, x):
        return F.max_pool2d(super().forward(x), 2)


class Sliced(nn.Sequential):
    def forward(self, x):
        for layer in list(self)[:-1]:
            x = layer(x)
        return self[-1](F.avg_pool2d(x, 2))


class Each(nn.ModuleList):
    def forward(self, x):
        for layer in self:
            x = F.max_pool2d(layer(x), 2)
        return x


class Named(nn.ModuleDict):
    def forward(self, x):
        assert list(self) == list(self.keys()) == ["a", "b"]
        assert len(self) == len(self.values())
        return F.avg_pool2d(sum(layer(x) for _, layer in self.items()), 2)


class Children(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.a, self.b = layers

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return F.max_pool2d(x, 2)


def layers():
    return nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)


MAKE = {
    "super().forward": lambda: Chain(*layers()),
    "slices": lambda: Sliced(*layers()),
    "list": lambda: Each(layers()),
    "dict": lambda: Named({"a": layers()[0], "b": layers()[0]}),
}


@pytest.mark.parametrize("name", MAKE)
def test_its_forward_goes_through_the_children_that_it_had(name):
    torch.manual_seed(0)
    model, x = MAKE[name]().eval(), torch.randn(2, *SIZE)
    stock = model(x)
    swap_pools(model, make_plan(find_pools(model, SIZE)))
    swapped = model(x)
    assert window_kernels(model, x) == []
    assert not torch.equal(swapped, stock)
    assert torch.equal(copy.deepcopy(model)(x), swapped)
    restore(model)
    assert torch.equal(model(x), stock)


def test_a_forward_over_all_children_is_refused_before_anything_is_changed():
    model, x = Children(*layers()).eval(), torch.randn(2, *SIZE)
    stock = model(x)
    with pytest.raises(CheckError, match="its replacement ran 2 times"):
        swap_pools(model, make_plan(find_pools(model, SIZE)))
    assert torch.equal(model(x), stock)


def test_a_slice_of_a_swapped_owner_does_not_pool_as_before_in_silence():
    model = Chain(*layers()).eval()
    swap_pools(model, make_plan(find_pools(model, SIZE)))
    with pytest.raises(LiftError, match="made by the class of a swapped one"):
        model[:1](torch.randn(2, *SIZE))
