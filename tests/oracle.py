"""Pooling by its definition, window by window and element by element: what every implementation is held against."""

from collections.abc import Callable
from itertools import product
from math import exp, inf, isinf, isnan, nan

import torch
from torch import Tensor

from poolswap.geometry import Geometry


def by_windows(x: Tensor, geometry: Geometry, function: Callable[[Tensor], Tensor | float]) -> Tensor:
    """function of each window's real elements, a vector, by loops: (N, C, *spatial) -> (N, C, *output)."""
    spatial = x.shape[2:]
    padding, sizes = geometry.place(spatial)
    y = torch.empty(*x.shape[:2], *sizes, dtype=x.dtype)
    axes = list(zip(geometry.kernel_size, geometry.stride, padding, geometry.dilation, spatial, strict=True))
    for n, c in product(range(x.shape[0]), range(x.shape[1])):
        plane = x[n, c]
        for out in product(*map(range, sizes)):
            places = [
                [p for i in range(k) if 0 <= (p := o * s - before + i * d) < size]
                for o, (k, s, before, d, size) in zip(out, axes, strict=True)
            ]
            window = torch.tensor([plane[index] for index in product(*places)], dtype=x.dtype)
            y[n, c][out] = function(window)
    return y


def soft_pool(x: Tensor, geometry: Geometry, beta: float) -> Tensor:
    """SoftPool of (N, C, *spatial), float64 -> (N, C, *output), float64."""
    return by_windows(x, geometry, lambda window: soft_maximum(window.tolist(), beta))


def soft_maximum(window: list[float], beta: float) -> float:
    """sum softmax(beta x)_i x_i of one window; -inf where there is nothing."""
    if any(isnan(v) for v in window):
        return nan
    real = [v for v in window if v != -inf]
    if not real or any(isinf(v) for v in real):
        return max(window, default=-inf)
    top = max(beta * v for v in real)
    weights = [exp(beta * v - top) for v in real]
    return sum(w * v for w, v in zip(weights, real, strict=True)) / sum(weights)
