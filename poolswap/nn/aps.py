"""Adaptive polyphase sampling: downsampling that does not depend on where the grid begins.

Chaman, Dokmanic, "Truly shift-invariant convolutional neural networks", CVPR 2021.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, binomial, check_taps, dense_pool, low_pass, window_dot, windows_of, wrapped
from poolswap.ops.tracing import is_traced


class APSPool(PlainPool):
    """Pooling with stride 1, then of its polyphase components the one of largest l2 norm.

    One choice a sample, for all channels. `of` is what pools with stride 1, the layer that it replaces by default, or
    "max"; `taps` > 1 low-passes that map first, by a binomial filter (`kernel`, a persistent buffer). Components reach
    over the map's end to its beginning where its size is not `stride` times the output's.

    With `circular` windows and filter go around the map. A circular shift of x then shifts y circularly, wherever the
    stride divides the map's size into the output's; without it, and in other sizes, only away from the border. Raises
    ValueError unless `taps` is odd, and at most 63.
    """

    paper = "Chaman and Dokmanic, CVPR 2021"
    subsamples = True

    kernel: Tensor

    def __init__(
        self, site: WindowSite, *, taps: int = 1, of: Literal["max", "avg"] | None = None, circular: bool = False
    ) -> None:
        super().__init__(site)
        check_taps(taps)
        dims = self.geometry.dims
        self.of = of or site.stock or "max"
        self.circular = circular
        self.filter = Geometry.make(dims, taps, 1, (taps - 1) // 2)
        self.phases = Geometry.make(dims, self.geometry.stride, self.geometry.stride)
        if taps > 1:
            self.register_buffer("kernel", binomial((taps,) * dims))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the chosen component of each sample."""
        dense = self._low_passed(dense_pool(x, self.geometry, self.of, circular=self.circular))
        sizes = self.geometry.output_size(x.shape[2:])
        lengths = [s * o for s, o in zip(self.geometry.stride, sizes, strict=True)]
        if is_traced() or tuple(lengths) != tuple(dense.shape[2:]):
            dense = wrapped(dense, [0] * len(lengths), lengths)
        components = windows_of(dense, self.phases)  # (phases, N, C, *output_size)
        strength = components.detach().abs().flatten(2)
        largest = strength.amax((0, 2)).clamp(min=torch.finfo(x.dtype).tiny)  # taken out, so that no square overflows
        chosen = (strength / largest.unsqueeze(1)).square().sum(2).argmax(0)
        index = chosen.reshape(1, -1, *(1,) * (x.dim() - 1)).expand(1, *components.shape[1:])
        return components.gather(0, index).squeeze(0)

    def _low_passed(self, dense: Tensor) -> Tensor:
        if max(self.filter.kernel_size) == 1:
            return dense
        if not self.circular:
            return low_pass(dense, self.kernel, self.filter)
        side = self.filter.padding
        lengths = [n + 2 * p for n, p in zip(dense.shape[2:], side, strict=True)]
        around = wrapped(dense, side, lengths)
        return window_dot(around, self.kernel, Geometry.make(self.filter.dims, self.filter.kernel_size, 1))
