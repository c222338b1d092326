"""SoftPool modules: over windows, over an adaptive grid, over the whole map.

Stergiou, Poppe, Kalliatakis, "Refining activation downsampling with SoftPool", ICCV 2021. `beta`, the inverse
temperature of the softmax, is a number, or it is learnt: "learn" is one for the layer, "channel" one for each of the
`channels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from poolswap.functional import adaptive_soft_pool, global_soft_pool, soft_pool_windows
from poolswap.geometry import Geometry, Size
from poolswap.nn.base import Pool, WindowPool
from poolswap.nn.beta import Beta, beta_repr, hold_beta, learnt_start
from poolswap.nn.site import HeadSite, WindowSite


class SoftPool(WindowPool):
    """y = sum_i softmax(beta x)_i x_i.

    See `poolswap.functional.soft_pool2d`. `beta`: 1 is the paper, 0 average pooling without padding, a large one max
    pooling; "learn" and "channel" learn one for the layer and one a channel, from `start`.
    """

    paper = "Stergiou et al., ICCV 2021; em: Stergiou and Poppe, 2021"

    beta: Tensor

    def __init__(self, site: WindowSite, *, beta: Beta = 1.0, start: float | None = None) -> None:
        super().__init__(site)
        self.start = hold_beta(self, site, beta, start)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) or (C, *spatial), floating point -> pooled, in x's dtype and memory format."""
        return soft_pool_windows(x, self.geometry, self.beta)

    def extra_repr(self) -> str:
        """Geometry and beta."""
        return f"{super().extra_repr()}, {beta_repr(self)}"


class _SoftPoolNd(SoftPool):
    """SoftPool with the arguments of torch.nn.MaxPoolNd; `same` is TensorFlow's padding."""

    dims: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        *,
        same: bool = False,
        beta: Beta = 1.0,
        start: float | None = None,
        channels: int | None = None,
    ) -> None:
        geometry = Geometry.make(self.dims, kernel_size, stride, padding, dilation, ceil_mode, same)
        super().__init__(WindowSite(geometry, channels=channels), beta=beta, start=start)


class SoftPool1d(_SoftPoolNd):
    """SoftPool of (N, C, L) or (C, L) with the arguments of torch.nn.MaxPool1d."""

    dims = 1


class SoftPool2d(_SoftPoolNd):
    """SoftPool of (N, C, H, W) or (C, H, W) with the arguments of torch.nn.MaxPool2d."""

    dims = 2


class SoftPool3d(_SoftPoolNd):
    """SoftPool of (N, C, T, H, W) or (C, T, H, W) with the arguments of torch.nn.MaxPool3d."""

    dims = 3


class AdaptiveSoftPool(Pool):
    """SoftPool over the windows of torch.nn.AdaptiveAvgPoolNd(output_size)."""

    beta: Tensor

    def __init__(
        self,
        output_size: Sequence[int | None],
        *,
        beta: Beta = 1.0,
        start: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.output_size = tuple(output_size)
        self.start = hold_beta(self, HeadSite(channels=channels), beta, start)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) or (C, *spatial) -> (..., *output_size)."""
        return adaptive_soft_pool(x, self.output_size, self.beta)

    def extra_repr(self) -> str:
        """Output size and beta."""
        return f"{self.output_size}, {beta_repr(self)}"


class GlobalSoftPool(Pool):
    """SoftPool over whole axes, as x.mean(axes, keepdim) averages them."""

    beta: Tensor

    def __init__(
        self,
        axes: Sequence[int],
        keepdim: bool = False,
        *,
        beta: Beta = 1.0,
        start: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.axes = tuple(axes)
        self.keepdim = keepdim
        self.start = hold_beta(self, HeadSite(channels=channels), beta, start)

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> x without `axes`, or with size 1 there if `keepdim`."""
        return global_soft_pool(x, self.axes, self.keepdim, self.beta)

    def extra_repr(self) -> str:
        """Axes and beta."""
        return f"axes={self.axes}, {beta_repr(self)}"


def soft_head(site: HeadSite, *, beta: Beta = 1.0, start: float | None = None) -> AdaptiveSoftPool | GlobalSoftPool:
    """SoftPool in the place of a head's pooling, over its whole map or its grid."""
    if isinstance(beta, str) and start is None:
        start = learnt_start(site)
    if site.output_size is not None:
        return AdaptiveSoftPool(site.output_size, beta=beta, start=start, channels=site.channels)
    return GlobalSoftPool(site.axes, site.keepdim, beta=beta, start=start, channels=site.channels)
