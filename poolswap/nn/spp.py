"""Spatial pyramid pooling, for the head of a network.

He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks for visual recognition", TPAMI 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.nn.head import HeadPool
from poolswap.nn.site import HeadSite

_MOST_CELLS = 10_000  # a classifier of ImageNet's for 512 channels has 20 GB then
_ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


class SpatialPyramidPool(HeadPool):
    """max_i x_i of each cell of each level's grid.

    Flattened and concatenated: a vector of one length for every map, `cells` values for each channel, level by level,
    channels outermost in each. It has no state. Raises ValueError for levels that are no grid, or make more than 10,000
    cells, and for a head that pools to a grid of its own.
    """

    paper = "He et al., TPAMI 2015"

    def __init__(self, site: HeadSite, *, levels: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__(site)
        if not levels or min(levels) < 1:
            raise ValueError(f"levels must be positive, not {tuple(levels)}")
        if site.output_size is not None:
            raise ValueError(f"its pyramid replaces a pooling to one value, not to {site.output_size}")
        self.levels = tuple(levels)
        self.cells = sum(level**site.dims for level in levels)
        if self.cells > _MOST_CELLS:
            raise ValueError(f"levels {tuple(levels)} make {self.cells:,} cells, and {_MOST_CELLS:,} are the most")

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> (N, C * cells)."""
        dims = x.dim() - 2
        # Adaptive max pooling also gives indices, which no other runtime has.
        exported = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
        pool = _by_cells if exported else _ADAPTIVE_MAX[dims]
        return torch.cat([pool(x, (level,) * dims).flatten(1) for level in self.levels], dim=1)

    def extra_repr(self) -> str:
        """Levels and cells."""
        return f"levels={self.levels}, cells={self.cells}"


def _by_cells(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Adaptive max pooling of the last axes of x in slices and maxima: (..., *grid)."""
    for axis, cells in enumerate(grid, start=x.dim() - len(grid)):
        size = x.shape[axis]
        edges = [(i * size // cells, ((i + 1) * size + cells - 1) // cells) for i in range(cells)]
        x = torch.cat([x.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in edges], dim=axis)
    return x
