"""What every pooling module of a head has: where the map lies in its input, and what becomes of its axes."""

from __future__ import annotations

from itertools import product
from math import prod

import torch
from torch import Tensor

from poolswap.functional import check_input
from poolswap.nn.base import Pool
from poolswap.nn.site import HeadSite
from poolswap.ops.tracing import is_traced


class HeadPool(Pool):
    """A pooling operator over the whole map of `site`, or over each cell of its grid.

    A subclass implements `pool`, and owes nothing to the order of axes, to dtype or rank. One that gives each
    channel several values says how many in `cells`: the classifier after it has to be a wider, new one.
    """

    cells: int = 1

    def __init__(self, site: HeadSite) -> None:
        super().__init__()
        self.axes = site.axes
        self.keepdim = site.keepdim
        self.output_size = site.output_size

    def forward(self, x: Tensor) -> Tensor:
        """x with the map in `axes` -> pooled, in x's dtype; halves are computed in float32.

        Raises ValueError for another rank, TypeError for integers.
        """
        dims = len(self.axes)
        check_input(x, dims)
        last = tuple(range(-dims, 0))
        maps = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(self.axes, last)
        batched = maps if x.dim() == dims + 2 else maps.unsqueeze(0)
        y = self._pooled(batched).to(x.dtype)
        y = y if x.dim() == dims + 2 else y.squeeze(0)
        return y.movedim(last, self.axes) if self.keepdim or self.output_size else y.flatten(-dims - 1)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial), float32 or float64 -> (N, C * cells)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Axes, or the grid."""
        return f"axes={self.axes}" if self.output_size is None else f"{self.output_size}"

    def _pooled(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> (N, C * cells, *grid), the cells those of torch.nn.AdaptiveAvgPoolNd."""
        spatial = x.shape[2:]
        grid = [n if o is None else o for n, o in zip(spatial, self.output_size or (1,) * len(spatial), strict=True)]
        if prod(grid) == 1:
            return self.pool(x).reshape(x.shape[0], -1, *grid)
        if not is_traced() and all(n % o == 0 for n, o in zip(spatial, grid, strict=True)):  # cells alike: one call
            for axis, (n, o) in enumerate(zip(spatial, grid, strict=True)):
                x = x.unflatten(2 + 2 * axis, (o, n // o))
            rows = range(2, x.dim(), 2)
            cells = x.permute(0, *rows, 1, *(row + 1 for row in rows))
            y = self.pool(cells.flatten(0, len(grid)))
            return y.reshape(x.shape[0], *grid, -1).movedim(-1, 1)
        edges = [[(i * n // o, -(-(i + 1) * n // o)) for i in range(o)] for n, o in zip(spatial, grid, strict=True)]
        values = [self.pool(_cell(x, cell)) for cell in product(*edges)]
        return torch.stack(values, -1).reshape(*values[0].shape, *grid)


def _cell(x: Tensor, edges: tuple[tuple[int, int], ...]) -> Tensor:
    for axis, (start, end) in enumerate(edges, start=2):
        x = x.narrow(axis, start, end - start)
    return x
