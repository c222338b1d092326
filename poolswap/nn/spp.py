"""Spatial pyramid pooling, for the head of a network.

He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks for visual recognition", TPAMI 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.functional import check_input

_ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


class SpatialPyramidPool(nn.Module):
    """Adaptive max pooling to a grid of each level, flattened and concatenated: a vector of one length for every map.

    It is wider than the global pooling that it replaces by `cells`, so the classifier after it has to be a new one.
    With `keepdim` the vector keeps `dims` axes of size 1, as nn.AdaptiveAvgPoolNd(1) does. It has no state. Raises
    ValueError for levels that are no grid.
    """

    def __init__(self, dims: int = 2, *, levels: tuple[int, ...] = (1, 2, 4), keepdim: bool = False) -> None:
        super().__init__()
        if not levels or min(levels) < 1 or dims not in _ADAPTIVE_MAX:
            raise ValueError(f"levels must be positive and dims 1, 2 or 3, not {tuple(levels)} and {dims}")
        self.levels = tuple(levels)
        self.dims = dims
        self.keepdim = keepdim

    @property
    def cells(self) -> int:
        """Values for each channel: the classifier's in_features is channels * cells."""
        return sum(level**self.dims for level in self.levels)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) or (C, *spatial) -> (N, C * cells) or (C * cells,), level by level, channels outermost."""
        check_input(x, self.dims)
        first = x.dim() - self.dims - 1
        # Adaptive max pooling also gives indices, which no other runtime has.
        pool = _by_cells if torch.compiler.is_exporting() else _ADAPTIVE_MAX[self.dims]
        y = torch.cat([pool(x, (level,) * self.dims).flatten(first) for level in self.levels], dim=first)
        return y.reshape(*y.shape, *(1,) * self.dims) if self.keepdim else y

    def extra_repr(self) -> str:
        """Levels and cells."""
        return f"levels={self.levels}, dims={self.dims}, cells={self.cells}"


def _by_cells(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Adaptive max pooling of the last axes of x in slices and maxima: (..., *grid)."""
    for axis, cells in enumerate(grid, start=x.dim() - len(grid)):
        size = x.shape[axis]
        edges = [(i * size // cells, ((i + 1) * size + cells - 1) // cells) for i in range(cells)]
        x = torch.cat([x.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in edges], dim=axis)
    return x
