"""Spatial pyramid pooling: one length for every map, level by level."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poolswap.checkpoint import load_checkpoint, save_checkpoint, verify_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError, NothingToReplaceError
from poolswap.load import load_model
from poolswap.nn import HeadSite
from poolswap.nn.spp import SpatialPyramidPool, _by_cells
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 64, 64)


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (13, 9)])
def test_every_map_gives_the_same_length(size):
    pool, x = SpatialPyramidPool(HeadSite()), torch.randn(2, 3, *size)
    y = pool(x)
    assert pool.cells == 21
    assert y.shape == (2, 63)
    assert torch.equal(y[:, :3], x.amax((2, 3)))
    assert torch.equal(y[:, 3:15], F.adaptive_max_pool2d(x, 2).flatten(1))
    assert torch.equal(pool(x[0]), y[0])


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (3, 13, 9)])
def test_an_export_takes_the_same_cells(size):
    x = torch.randn(2, 3, *size)
    pool = {2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[len(size)]
    for level in (1, 2, 3):
        grid = (level,) * len(size)
        assert torch.equal(_by_cells(x, grid), pool(x, grid))


@pytest.mark.parametrize(("dims", "cells"), [(1, 3), (2, 5), (3, 9)])
def test_every_number_of_dimensions(dims, cells):
    pool = SpatialPyramidPool(HeadSite(axes=tuple(range(-dims, 0))), levels=(1, 2))
    assert pool(torch.randn(2, 3, *(5,) * dims)).shape == (2, 3 * cells)


@pytest.mark.parametrize("levels", [(), (0,)])
def test_what_is_no_grid_is_refused(levels):
    with pytest.raises(ValueError, match="levels must be positive"):
        SpatialPyramidPool(HeadSite(), levels=levels)


def test_a_pyramid_that_no_classifier_holds_is_refused():
    with pytest.raises(ValueError, match="10,000 are the most"):
        SpatialPyramidPool(HeadSite(), levels=(1, 100_000))


class Head(nn.Module):
    """A net whose head is given: pooled by a mean of the map, then `between`, then a classifier."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.between = between
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.between(self.conv(x).mean((2, 3))))


@pytest.mark.parametrize("name", ["test_resnet", "torchvision:resnet18", "densenet121"])
def test_it_replaces_a_head_and_makes_the_classifier_that_fits(name):
    model, _ = load_model(name, input_size=SIZE)
    x = torch.randn(2, *SIZE)
    before, classes = model.eval()(x), model(x).shape
    report = swap_pools(model, make_plan(find_pools(model, SIZE), "all", "spp:levels=1+2", input_size=SIZE))
    (head,), (classifier,) = report.swapped, report.classifiers
    assert isinstance(model.get_submodule(head.path), SpatialPyramidPool)
    linear = model.get_submodule(classifier.path)
    assert linear.in_features % 5 == 0
    y = model(x)
    assert y.shape == classes
    y.sum().backward()
    assert linear.weight.grad.isfinite().all()
    restore(model)
    assert torch.equal(model(x), before)


def test_a_head_that_pools_by_a_window():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AvgPool2d(62), nn.Flatten(), nn.Linear(8, 5)).eval()
    x = torch.randn(2, *SIZE)
    swap_pools(model, make_plan(find_pools(model, SIZE), "all", "spp:levels=1", input_size=SIZE))
    torch.testing.assert_close(model(x), model[3](model[0](x).amax((2, 3))))


def test_a_functional_head_too():
    model = Head(nn.Identity()).eval()
    swap_pools(model, make_plan(find_pools(model, SIZE), "all", "spp", input_size=SIZE))
    x = torch.randn(2, *SIZE)
    features = model.conv(x)
    pooled = torch.cat([F.adaptive_max_pool2d(features, grid).flatten(1) for grid in (1, 2, 4)], dim=1)
    torch.testing.assert_close(model(x), model.fc(pooled))


def test_its_checkpoint_says_so_and_verifies(tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    arguments = ["convert", "test_resnet", "--to", "spp", "--input-size", "3,64,64", "--output", str(out), "--json"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "is new and untrained" in captured.err
    assert json.loads(captured.out)["classifiers"][0]["path"] == "fc"
    assert verify_checkpoint(out).ok
    model, _ = load_checkpoint(out)
    stock, _ = load_model("test_resnet", input_size=SIZE)
    with pytest.raises(RuntimeError, match="size mismatch for fc"):
        stock.load_state_dict(model.state_dict())


def test_beside_another_operator(tmp_path):
    model, spec = load_model("test_resnet", input_size=SIZE)
    sites = find_pools(model, SIZE)
    plan = make_plan(sites, "all", swaps=[("global_pool*", "spp")], model=spec.reference, input_size=SIZE)
    assert plan.operators == ("soft", "spp")
    swap_pools(model, plan)
    save_checkpoint(model, tmp_path / "net.safetensors", spec=spec, plan=plan)
    assert verify_checkpoint(tmp_path / "net.safetensors").ok


def test_a_head_without_room_for_it_stays_as_it_was():
    model = Head(nn.LayerNorm(8)).eval()
    x = torch.randn(2, *SIZE)
    before, sites = model(x), find_pools(model, SIZE)
    with pytest.raises(InputError, match="no room for spp"):
        swap_pools(model, make_plan(sites, "all", "spp", input_size=SIZE))
    assert torch.equal(model(x), before)
    model.fc = nn.Linear(9, 5)
    with pytest.raises(InputError, match="8 pooled channels; its last, fc, takes 9"):
        swap_pools(model, make_plan(sites, "all", "spp", input_size=SIZE))
    with pytest.raises(NothingToReplaceError, match="takes a head's global pooling alone"):
        make_plan([site for site in sites if site.scope == "window"], "all", "spp")


def test_a_window_is_not_for_it():
    model, _ = load_model("test_resnet", input_size=SIZE)
    with pytest.raises(InputError, match="a window site"):
        make_plan(find_pools(model, SIZE), "#1", "spp")


def test_a_head_of_a_grid_is_refused_with_words():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(72, 5))
    with pytest.raises(InputError, match=r"'spp' at a head of 3x3: its pyramid replaces a pooling to one value"):
        swap_pools(model, make_plan(find_pools(model, SIZE), "all", "spp"))
    assert type(model[1]) is nn.AdaptiveAvgPool2d


def test_a_head_with_channels_behind_its_map():
    class Behind(Head):
        def forward(self, x):
            return self.fc(self.conv(x).permute(0, 2, 3, 1).mean((1, 2)))

    model, x = Behind(nn.Identity()).eval(), torch.randn(2, *SIZE)
    swap_pools(model, make_plan(find_pools(model, SIZE), "all", "spp:levels=1", input_size=SIZE))
    torch.testing.assert_close(model(x), model.fc(model.conv(x).amax((2, 3))))
