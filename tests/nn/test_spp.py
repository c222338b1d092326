"""Spatial pyramid pooling: one length for every map, level by level."""

import pytest
import torch
from torch.nn import functional as F

from poolswap.nn.spp import SpatialPyramidPool


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (13, 9)])
def test_every_map_gives_the_same_length(size):
    pool, x = SpatialPyramidPool((1, 2, 4)), torch.randn(2, 3, *size)
    y = pool(x)
    assert pool.cells == 21
    assert y.shape == (2, 63)
    assert torch.equal(y[:, :3], x.amax((2, 3)))
    assert torch.equal(y[:, 3:15], F.adaptive_max_pool2d(x, 2).flatten(1))
    assert torch.equal(pool(x[0]), y[0])


@pytest.mark.parametrize(("dims", "cells"), [(1, 3), (2, 5), (3, 9)])
def test_every_number_of_dimensions(dims, cells):
    assert SpatialPyramidPool((1, 2), dims=dims)(torch.randn(2, 3, *(5,) * dims)).shape == (2, 3 * cells)


@pytest.mark.parametrize(("levels", "dims"), [((), 2), ((0,), 2), ((1,), 4)])
def test_what_is_no_grid_is_refused(levels, dims):
    with pytest.raises(ValueError, match="levels must be positive"):
        SpatialPyramidPool(levels, dims=dims)
