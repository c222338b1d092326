"""Windows in plain torch operations: what the operators of this folder are written in.

Every function takes x (N, C, *spatial) and a Geometry, and leaves padding out of every window. A window without any
real element, which only padding together with dilation can make, has mean 0 and maximum -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import inf
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.functional import check_input
from poolswap.geometry import Geometry
from poolswap.nn.base import WindowPool
from poolswap.ops.tracing import is_traced

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MOST_TAPS = 63


class PlainPool(WindowPool):
    """A pooling operator in plain torch operations: a subclass implements `pool`, and owes nothing to dtype or rank."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) or (C, *spatial), floating point -> pooled, in x's dtype; halves are computed in float32.

        Raises ValueError for another rank, TypeError for integers.
        """
        dims = self.geometry.dims
        check_input(x, dims)
        batched = x.dim() == dims + 2
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        y = self.pool(wide if batched else wide.unsqueeze(0)).to(x.dtype)
        return y if batched else y.squeeze(0)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial), float32 or float64 -> (N, C, *output_size)."""
        raise NotImplementedError


def window_max(x: Tensor, geometry: Geometry) -> Tensor:
    """Each window's maximum, by torch's own max pooling; also of x (C, *spatial)."""
    padding, ceil_mode = geometry.padding, geometry.ceil_mode
    if geometry.same:
        x, ceil_mode = frame(x, geometry, -inf), False
    return _MAX[geometry.dims](x, geometry.kernel_size, geometry.stride, padding, geometry.dilation, ceil_mode)


def dense_pool(x: Tensor, geometry: Geometry, op: Literal["max", "avg"], *, circular: bool = False) -> Tensor:
    """The window's maximum or mean at every element: the map that pooling takes every stride-th element of.

    Element o * stride of a dimension is window o's; what follows the last one is less than a stride long. With
    `circular` the windows go around x instead of ending at its border, and the map is as large as x.
    """
    steps = Geometry.make(geometry.dims, geometry.kernel_size, 1, 0, geometry.dilation)
    if circular:
        before = geometry.place(x.shape[2:])[0]
        x = wrapped(x, before, [n + extent - 1 for n, extent in zip(x.shape[2:], geometry.extent, strict=True)])
        return window_max(x, steps) if op == "max" else window_mean(x, steps)
    sides = _dense_sides(x, geometry)
    if op == "max":
        return window_max(_pad(x, sides, -inf), steps)
    shares = window_mean(_pad(x.new_ones(1, 1, *x.shape[2:]), sides, 0.0), steps)
    return window_mean(_pad(x, sides, 0.0), steps) / shares.clamp(min=torch.finfo(x.dtype).tiny)


def _dense_sides(x: Tensor, geometry: Geometry) -> list[tuple[int, int]]:
    leading, sizes = geometry.place(x.shape[2:])
    axes = zip(x.shape[2:], sizes, leading, geometry.extent, geometry.stride, geometry.padding, strict=True)
    sides = []
    for n, o, before, extent, s, p in axes:
        length, last = n + 2 * p - extent + 1, (o - 1) * s + 1
        if geometry.ceil_mode or geometry.same:  # which is longer is a fact of most layers, of whatever size a trace is
            length = last if s + p <= extent else max(length, last)
        sides.append((before, length - 1 + extent - n - before))
    return sides


def wrapped(x: Tensor, before: Sequence[int], lengths: Sequence[int]) -> Tensor:
    """`lengths` elements of each spatial dimension of x (N, C, *spatial), from `before` its first, around its end."""
    for axis, (start, length) in enumerate(zip(before, lengths, strict=True), start=2):
        x = x.index_select(axis, (torch.arange(length, device=x.device) - start) % x.shape[axis])
    return x


def window_mean(x: Tensor, geometry: Geometry) -> Tensor:
    """The mean of each window's real elements: torch's average pooling with count_include_pad=False where it can."""
    # torch's 3d average refuses a window that is larger than the map, and fits by padding or ceil_mode alone.
    fits = geometry.dims < 3 or not (geometry.ceil_mode or max(geometry.padding) > 0)
    if not fits and not is_traced():
        fits = all(k <= n for n, k in zip(x.shape[2:], geometry.kernel_size, strict=True))
    if fits and not geometry.same and max(geometry.dilation) == 1:
        pool, windows = _AVG[geometry.dims], (geometry.kernel_size, geometry.stride, geometry.padding)
        return pool(x, *windows, ceil_mode=geometry.ceil_mode, count_include_pad=False)
    return windows_of(x, geometry).sum(0) / window_count(x, geometry)


def window_dot(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The inner product of each window with weight (*kernel_size), or with its channel's own in (C, *kernel_size)."""
    weight, framed = weight.to(x.dtype), frame(x, geometry, 0.0)
    if is_traced() and weight.dim() == geometry.dims:
        # There the number of channels is no constant, but the older ONNX exporter wants that of a convolution's weight.
        planes = framed.flatten(0, 1).unsqueeze(1)
        y = _CONV[geometry.dims](planes, weight[None, None], stride=geometry.stride, dilation=geometry.dilation)
        return y.reshape(*x.shape[:2], *y.shape[2:])
    channels = x.shape[1]
    weight = weight.expand(channels, *geometry.kernel_size).unsqueeze(1)
    return _CONV[geometry.dims](framed, weight, stride=geometry.stride, dilation=geometry.dilation, groups=channels)


def low_pass(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The mean of each window's real elements under the positive weights (*kernel_size)."""
    total = window_dot(x.new_ones(1, 1, *x.shape[2:]), weight, geometry)
    return window_dot(x, weight, geometry) / total.clamp(min=torch.finfo(x.dtype).tiny)


def windows_of(x: Tensor, geometry: Geometry, fill: float = 0.0) -> Tensor:
    """(K, N, C, *output_size): the K elements of each window, with `fill` for padding."""
    sizes = geometry.output_size(x.shape[2:])
    framed = frame(x, geometry, fill)
    steps = list(zip(geometry.dilation, geometry.stride, sizes, strict=True))
    elements = []
    for offsets in product(*map(range, geometry.kernel_size)):
        taken = tuple(slice(i * d, i * d + (o - 1) * s + 1, s) for i, (d, s, o) in zip(offsets, steps, strict=True))
        elements.append(framed[(slice(None), slice(None), *taken)])
    return torch.stack(elements)


def real_elements(x: Tensor, geometry: Geometry) -> Tensor:
    """(K, 1, 1, *output_size), bool: which elements of `windows_of` are no padding."""
    return windows_of(x.new_ones(1, 1, *x.shape[2:]), geometry) > 0


def window_count(x: Tensor, geometry: Geometry) -> Tensor:
    """(1, 1, *output_size): how many real elements each window has, or 1 for none, in x's dtype."""
    return real_elements(x, geometry).sum(0).clamp(min=1).to(x.dtype)


def log_mean_exp(x: Tensor, real: Tensor | None = None) -> Tensor:
    """The logarithm of the mean of e^x over the first axis, of `real` elements alone; exact for small x too."""
    if real is None:
        top = x.detach().amax(0)
        return top + _expm1(x - top).mean(0).log1p()
    top = torch.where(real, x, -inf).detach().amax(0)
    grown = _expm1(torch.where(real, x - top, 0.0))
    return top + (grown.sum(0) / real.sum(0).clamp(min=1).to(x.dtype)).log1p()


def _expm1(x: Tensor) -> Tensor:
    """e^x - 1 of x <= 0, in operations that ONNX has."""
    return (x / 2).tanh() * (x.exp() + 1)


def frame(x: Tensor, geometry: Geometry, fill: float) -> Tensor:
    """x padded with `fill`, or cut, to exactly what its windows cover: they need neither padding nor ceil_mode now."""
    spatial = x.shape[-geometry.dims :]
    leading, sizes = geometry.place(spatial)
    axes = zip(spatial, leading, sizes, geometry.stride, geometry.extent, strict=True)
    return _pad(x, [(before, (o - 1) * s + extent - n - before) for n, before, o, s, extent in axes], fill)


def binomial(kernel_size: tuple[int, ...]) -> Tensor:
    """(*kernel_size), sums to 1: the product of each dimension's binomial coefficients."""
    weight = torch.ones(())
    for size in kernel_size:
        row = torch.ones(1)
        for _ in range(size - 1):
            row = (F.pad(row, (1, 0)) + F.pad(row, (0, 1))) / 2
        weight = weight.unsqueeze(-1) * row
    return weight


def check_taps(taps: int) -> None:
    """Raise ValueError for a number of taps that no filter of a pooling has: even, or more than 63."""
    if not 1 <= taps <= _MOST_TAPS or taps % 2 == 0:
        raise ValueError(f"taps must be odd and at most {_MOST_TAPS}, not {taps}")


def _pad(x: Tensor, sides: list[tuple[int, int]], fill: float) -> Tensor:
    flat = [amount for pair in reversed(sides) for amount in pair]
    return F.pad(x, flat, value=fill) if is_traced() or any(flat) else x
