"""SoftPool by its definition, element by element in float64: what every implementation is held against."""

from itertools import product
from math import exp, inf, isinf, isnan, nan

import torch
from torch import Tensor

from poolswap.geometry import Geometry


def soft_pool(x: Tensor, geometry: Geometry, beta: float) -> Tensor:
    """(N, C, *spatial) -> (N, C, *output), float64, by loops over windows and their real elements."""
    spatial = x.shape[2:]
    padding, sizes = geometry.place(spatial)
    y = torch.empty(*x.shape[:2], *sizes, dtype=torch.float64)
    steps = list(zip(geometry.stride, padding, geometry.dilation, spatial, strict=True))
    for n, c in product(range(x.shape[0]), range(x.shape[1])):
        plane = x[n, c]
        for out in product(*map(range, sizes)):
            places = [
                [p for i in range(k) if 0 <= (p := o * s - before + i * d) < size]
                for o, k, (s, before, d, size) in zip(out, geometry.kernel_size, steps, strict=True)
            ]
            y[n, c][out] = soft_maximum([float(plane[index]) for index in product(*places)], beta)
    return y


def soft_maximum(window: list[float], beta: float) -> float:
    """sum softmax(beta x)_i x_i of one window."""
    if any(isnan(v) for v in window):
        return nan
    real = [v for v in window if v != -inf]
    if not real or any(isinf(v) for v in real):
        return max(window, default=-inf)
    top = max(beta * v for v in real)
    weights = [exp(beta * v - top) for v in real]
    return sum(w * v for w, v in zip(weights, real, strict=True)) / sum(weights)
