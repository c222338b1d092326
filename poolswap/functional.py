"""SoftPool as functions, with the signatures of torch.nn.functional.max_pool1d, max_pool2d and max_pool3d.

Stergiou, Poppe, Kalliatakis, "Refining activation downsampling with SoftPool", ICCV 2021, equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from poolswap.geometry import Geometry, Size
from poolswap.ops import eager_soft_pool, is_eager, observed_soft_pool, soft_pool
from poolswap.ops.tracing import is_traced
from poolswap.ops.windows import Windows

__all__ = ["adaptive_soft_pool", "global_soft_pool", "soft_pool1d", "soft_pool2d", "soft_pool3d", "soft_pool_windows"]

Beta = float | Tensor


def soft_pool1d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    beta: Beta = 1.0,
) -> Tensor:
    """SoftPool of (N, C, L) or (C, L); see `soft_pool2d`."""
    return _pool(x, 1, kernel_size, stride, padding, dilation, ceil_mode, beta)


def soft_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    beta: Beta = 1.0,
) -> Tensor:
    """Softmax-weighted sum of each window: y = sum_i softmax(beta x)_i x_i over the window's real elements.

    x is (N, C, H, W) or (C, H, W), float16, bfloat16, float32 or float64; the output has the shape that
    torch.nn.functional.max_pool2d gives with the same arguments, and x's dtype and memory format. Padding is excluded
    from every window. `beta` is a number, a tensor of one element, or one element a channel, (C,): 1 is the paper, 0 is
    average pooling without padding, large is max pooling. A tensor may require a gradient. On the CPU both shapes are
    served by the kernel, which gives the gradient together with x's; on a GPU the reference does that, and all of (C,).

    Raises ValueError for a geometry that torch refuses, an input of another rank or a beta of another shape, TypeError
    for an integer input.
    """
    return _pool(x, 2, kernel_size, stride, padding, dilation, ceil_mode, beta)


def soft_pool3d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    beta: Beta = 1.0,
) -> Tensor:
    """SoftPool of (N, C, T, H, W) or (C, T, H, W); see `soft_pool2d`."""
    return _pool(x, 3, kernel_size, stride, padding, dilation, ceil_mode, beta)


def soft_pool_windows(x: Tensor, geometry: Geometry, beta: Beta = 1.0) -> Tensor:
    """SoftPool of x (N, C, *spatial) or (C, *spatial) over the windows of `geometry`."""
    return _pool_windows(x, geometry, beta, is_eager(x))


def adaptive_soft_pool(x: Tensor, output_size: Sequence[int | None], beta: Beta = 1.0) -> Tensor:
    """SoftPool over the windows of torch.nn.AdaptiveAvgPoolNd: output i covers [floor(i n / o), ceil((i + 1) n / o)).

    x is (N, C, *spatial) or (C, *spatial) with one spatial dimension per entry of `output_size`; None keeps a size.
    """
    dims = len(output_size)
    check_input(x, dims)
    beta = _as_tensor(beta, x)
    sizes = [n if o is None else o for n, o in zip(x.shape[-dims:], output_size, strict=True)]
    return _adaptive(x, sizes, beta, axis=x.dim() - dims)


def global_soft_pool(x: Tensor, axes: Sequence[int], keepdim: bool = False, beta: Beta = 1.0) -> Tensor:
    """SoftPool over whole axes of x, one to three of them, as x.mean(axes, keepdim) averages them.

    The channels of a `beta` (C,) are the last of the axes that remain.
    """
    dims = len(axes)
    last = list(range(-dims, 0))
    maps = x.movedim(list(axes), last)
    leading = maps.unsqueeze(0) if maps.dim() == dims else maps
    ones, sizes = (1,) * dims, tuple(maps.shape[-dims:])
    y = soft_pool(leading, _as_tensor(beta, x), Windows(sizes, sizes, (0,) * dims, ones, ones))
    y = y.reshape((*maps.shape[:-dims], *ones))
    return y.movedim(last, list(axes)) if keepdim else y.flatten(-dims - 1) if y.dim() > dims else y.reshape(())


# Symbolic sizes cannot be kept, so these serve eager calls alone.
@lru_cache(maxsize=1024)
def _place(geometry: Geometry, shape: tuple[int, ...], dtype: torch.dtype) -> Windows:
    _check(shape, dtype, geometry.dims)
    return Windows.place(geometry, shape[-geometry.dims :])


@lru_cache(maxsize=1024, typed=True)
def _make_and_place(shape: tuple[int, ...], dtype: torch.dtype, dims: int, *layer: Any) -> Windows:
    return _place(Geometry.make(dims, *layer), shape, dtype)


def _pool(
    x: Tensor,
    dims: int,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
    beta: Beta,
) -> Tensor:
    layer = (kernel_size, stride, padding, dilation, ceil_mode)
    eager = is_eager(x)
    if eager:
        try:
            windows = _make_and_place(x.shape, x.dtype, dims, *layer)
        except TypeError:  # a list, or another sequence that cannot be kept
            pass
        else:
            return _pool_eagerly(x, windows, beta)
    return _pool_windows(x, Geometry.make(dims, *layer), beta, eager)


def _pool_windows(x: Tensor, geometry: Geometry, beta: Beta, eager: bool) -> Tensor:
    if eager:
        return _pool_eagerly(x, _place(geometry, x.shape, x.dtype), beta)
    check_input(x, geometry.dims)
    return observed_soft_pool(x, _as_tensor(beta, x), Windows.place(geometry, x.shape[-geometry.dims :]))


def _pool_eagerly(x: Tensor, windows: Windows, beta: Beta) -> Tensor:
    return eager_soft_pool(x, beta if isinstance(beta, Tensor) else _constant(beta, x.device), windows)


@lru_cache(maxsize=64)
def _constant(beta: float, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # one that was made in inference mode could not be saved for a backward
        return torch.full((), beta, dtype=torch.float64, device=device)


def check_input(x: Tensor, dims: int) -> None:
    """Refuse what no pooling layer takes: another rank than dims + 1 or dims + 2, or integers."""
    _check(x.shape, x.dtype, dims)


def _check(shape: Sequence[int], dtype: torch.dtype, dims: int) -> None:
    if len(shape) not in (dims + 1, dims + 2):
        raise ValueError(f"{dims}d pooling takes {dims + 1} or {dims + 2} dimensions, not {tuple(shape)}")
    if not dtype.is_floating_point:
        raise TypeError(f"{dims}d pooling takes floating point, not {dtype}")


def _adaptive(x: Tensor, sizes: list[int], beta: Tensor, axis: int) -> Tensor:
    """One operator call where every window is alike; otherwise split the first uneven dimension and recurse."""
    spatial = x.shape[axis:]
    for i, (n, o) in enumerate(zip(spatial, sizes, strict=True)):
        if o != 1 and (is_traced() or n % o):
            starts = [(j * n // o, -(-(j + 1) * n // o)) for j in range(o)]
            rest = [*sizes[:i], 1, *sizes[i + 1 :]]
            parts = [_adaptive(x.narrow(axis + i, a, b - a), rest, beta, axis) for a, b in starts]
            return torch.cat(parts, dim=axis + i)
    kernel = tuple(n // o for n, o in zip(spatial, sizes, strict=True))
    zeros, ones = (0,) * len(kernel), (1,) * len(kernel)
    return soft_pool(x, beta, Windows(kernel, kernel, zeros, ones, tuple(sizes)))


def _as_tensor(beta: Beta, x: Tensor) -> Tensor:
    return beta if isinstance(beta, Tensor) else torch.full((), beta, dtype=torch.float64, device=x.device)
