"""S3Pool: max pooling whose sampling grid is drawn anew.

Zhai, Wu, Kumar, Cheng, Lu, Zhang, Feris, "S3Pool: pooling with stochastic spatial sampling", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, dense_pool, window_mean


class S3Pool(PlainPool):
    """Max pooling with stride 1, then random rows and columns; block means in eval mode.

    Train: one row and one column are kept for every `stride` of them. In each cell of `grid` rows, grid / stride rows
    drawn without replacement, in order, the same for the whole batch; columns likewise. Eval: the mean of each block of
    one stride. `grid` (default: the stride) is rounded up to a multiple of the stride in each dimension. Draws come
    from torch's generator of x's device.
    """

    paper = "Zhai et al., CVPR 2017"
    draws = True
    subsamples = True

    def __init__(self, site: WindowSite, *, grid: int | None = None) -> None:
        super().__init__(site)
        if grid is not None and grid < 1:
            raise ValueError(f"grid must be positive, not {grid}")
        self.grid = tuple(-(-(grid or s) // s) * s for s in self.stride)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> a drawn subset, or block means, of the dense maximum."""
        dense, stride = dense_pool(x, self.geometry, "max"), self.geometry.stride
        if not self.training:
            return window_mean(dense, Geometry.make(self.geometry.dims, stride, stride, ceil_mode=True))
        for axis, (grid, s) in enumerate(zip(self.grid, stride, strict=True), start=2):
            dense = dense.index_select(axis, torch.cat(list(_draw(dense.shape[axis], grid, s, x.device))))
        return dense


def _draw(length: int, grid: int, stride: int, device: torch.device) -> Iterator[Tensor]:
    """Sorted positions in 0..length: of each cell of `grid` one for each stride; the last cell may be shorter."""
    cells, rest = divmod(length, grid)
    for first, count, size in ((0, cells, grid), (cells * grid, 1, rest)):
        if count and size:
            keys = torch.rand(count, size, device=device)
            chosen = keys.argsort(1)[:, : -(-size // stride)].sort(1).values
            yield (chosen + first + size * torch.arange(count, device=device).unsqueeze(1)).flatten()
