"""Adaptive polyphase sampling: the definition, shift invariance where it holds, and where it does not."""

from itertools import product

import pytest
import torch
from pools import distinct, make
from torch import nn

from poolswap.geometry import Geometry

HALVES = Geometry.make(2, 2, 2)


def roll(x: torch.Tensor, shift: tuple[int, ...]) -> torch.Tensor:
    return torch.roll(x, shift, tuple(range(-len(shift), 0)))


@pytest.mark.parametrize("circular", [False, True])
def test_it_takes_each_samples_component_of_largest_norm(circular):
    x = distinct(6, 3, 8, 6)
    y = make(f"aps:circular={circular}", HALVES).double()(x)
    padded = nn.functional.pad(x, (0, 1, 0, 1), mode="circular") if circular else x
    dense = nn.functional.max_pool2d(padded, 2, 1)
    if not circular:  # a component that ends early goes on at the beginning
        dense = torch.cat([dense, dense[..., :1]], -1)
        dense = torch.cat([dense, dense[..., :1, :]], -2)
    taken = set()
    for one, found in zip(dense, y, strict=True):
        components = {(i, j): one[:, i::2, j::2] for i, j in product(range(2), range(2))}
        phase = max(components, key=lambda phase: float(components[phase].norm()))
        taken.add(phase)
        assert torch.equal(found, components[phase])
    assert len(taken) > 1


@pytest.mark.parametrize("name", ["aps:circular=true", "aps:circular=true,taps=3", "aps:circular=true,of=avg,taps=5"])
@pytest.mark.parametrize("geometry", [HALVES, Geometry.make(2, 3, 2, 1), Geometry.make(2, 3, (3, 2), 1)], ids=str)
def test_a_circular_shift_shifts_its_output_circularly(name, geometry):
    module, x = make(name, geometry).double(), distinct(2, 3, 12, 12)
    assert geometry.output_size((12, 12)) == tuple(12 // s for s in geometry.stride)
    y = module(x)
    back = list(product(range(y.shape[-2]), range(y.shape[-1])))
    for shift in product(range(4), range(3)):
        for moved, one in zip(module(roll(x, shift)), y, strict=True):  # each sample chooses by itself
            assert any(torch.allclose(moved, roll(one, by)) for by in back)


class Circular(nn.Module):
    """Circular convolutions, two poolings, the mean of the map."""

    def __init__(self, pool: str, padding_mode: str = "circular") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, padding_mode=padding_mode),
            nn.ReLU(),
            make(pool, Geometry.make(2, 3, 2, 1)),
            nn.Conv2d(6, 6, 3, padding=1, padding_mode=padding_mode),
            nn.ReLU(),
            make(pool, HALVES),
        ).double()
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


@pytest.mark.parametrize(
    ("pool", "padding", "invariant"),
    [
        ("aps:circular=true", "circular", True),
        ("aps:circular=true,taps=3", "circular", True),
        ("aps:circular=true", "zeros", False),
        ("aps", "circular", False),
        ("max", "circular", False),
        ("blur", "circular", False),
    ],
)
@torch.no_grad()
def test_a_network_is_invariant_to_circular_shifts_where_every_layer_is_circular(pool, padding, invariant):
    model, x = Circular(pool, padding), distinct(2, 3, 16, 16)
    y = model(x)
    apart = max(float((model(roll(x, shift)) - y).abs().max() / y.abs().max()) for shift in ((1, 0), (0, 3), (5, 7)))
    assert (apart < 1e-12) == invariant
    assert invariant or apart > 1e-4


def test_huge_values_choose_as_small_ones_do():
    x = distinct(4, 3, 8, 8, dtype=torch.float32)
    module = make("aps", HALVES)
    torch.testing.assert_close(module(x * 1e30), module(x) * 1e30)
    torch.testing.assert_close(module(x * 1e-30), module(x) * 1e-30)
