"""How many bytes SoftPool moves, for a roofline."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from poolswap.ops.triton.windows import SpatialWindows
from poolswap.ops.windows import Windows


@dataclass(frozen=True)
class Traffic:
    """Bytes of one call.

    `forward` (x, y) and `backward` (grad, x, dx) are what no implementation can avoid, every tensor once;
    `backward_extra` is what the Triton kernels move beyond that: statistics of the windows written and read, x read
    again, dx zeroed first.
    """

    forward: int
    backward: int
    backward_extra: int


def traffic(x: Tensor, windows: Windows) -> Traffic:
    """Traffic of SoftPool of x over these windows; only x's shape and dtype matter."""
    dims = windows.dims
    own = SpatialWindows.make(x.shape[-dims:], windows)
    inputs = x.numel() * x.itemsize
    outputs = prod(x.shape[:-dims]) * prod(own.output_size)
    extra = 0
    if own.scratch:
        statistics = x.itemsize + 2 * torch.promote_types(x.dtype, torch.float32).itemsize
        extra = 2 * outputs * statistics + inputs
    elif not own.by_cells and not own.complete:
        extra = inputs
    return Traffic(inputs + outputs * x.itemsize, 2 * inputs + outputs * x.itemsize, extra)
