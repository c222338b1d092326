"""Which Triton kernels a call runs, and with which arguments.

The forward is one kernel. The backward has only x: it evaluates the windows anew and gathers, so it needs no atomics
and gives the same bits every time. It is one of

- `cell_gradient`, one pass, where few windows cover an element (kernel 2 or 3 with stride 2, kernel = stride);
- `large_windows` in mode "gradient", one pass, for long windows that do not overlap (global pooling);
- `small_windows` or `large_windows` with statistics, three numbers per output, then `gather_windows`, for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from poolswap.ops.layout import empty_output, layout_of
from poolswap.ops.triton import kernels
from poolswap.ops.triton.windows import MOST_TAPS, SpatialWindows, power_of_two
from poolswap.ops.windows import Windows

WARPS = 4
# From this many elements on, offsets take 64 bits: 2**31 less the largest block.
WIDE_FROM = 2**31 - 2**14
# float32 values that a lane may hold in registers, where there is a choice.
MOST_VALUES = 40
# `gather_windows` spells out its loop up to this many windows an element.
MOST_UNROLLED = 9


@dataclass(frozen=True)
class Launch:
    """One kernel launch over a one-dimensional grid: arguments by name, compile-time ones included."""

    kernel: Any
    grid: int
    arguments: dict[str, Any]


@dataclass(frozen=True)
class KernelCall:
    """One operator call as the kernels take it.

    x is dense with (outer, *spatial, inner) in memory; so are y, grad and dx in the launches below. `beta` is on x's
    device, `lanes` is the width of a warp.
    """

    x: Tensor
    beta: Tensor
    inner: int
    windows: SpatialWindows
    lanes: int

    def forward(self, y: Tensor) -> Iterator[Launch]:
        """The kernel that writes y."""
        yield self._over_outputs("forward", out=y, grad=y, scale=y, shift=y)

    def backward(self, grad: Tensor, dx: Tensor) -> Iterator[Launch]:
        """The kernels that write dx, in order."""
        if self.windows.by_cells:
            yield self._over_cells(grad, dx)
        elif not self.windows.scratch:
            if not self.windows.complete:
                dx.zero_()
            yield self._over_outputs("gradient", out=dx, grad=grad, scale=dx, shift=dx)
        else:
            compute = torch.promote_types(self.x.dtype, torch.float32)
            scale, shift = (torch.empty_like(grad, dtype=compute) for _ in range(2))
            centre = torch.empty_like(grad)
            yield self._over_outputs("statistics", out=centre, grad=grad, scale=scale, shift=shift)
            yield self._over_inputs(centre, scale, shift, dx)

    @property
    def _planes(self) -> int:
        """Elements at one spatial position: outer * inner."""
        return self.x.numel() // prod(self.windows.size)

    @property
    def _outputs(self) -> int:
        return self._planes * prod(self.windows.output_size)

    def _arguments(self, count: int) -> dict[str, Any]:
        windows = self.windows
        return {
            "x": self.x,
            "beta": self.beta,
            "size": windows.size,
            "output_size": windows.output_size,
            "inner": self.inner,
            "count": count,
            "kernel": windows.kernel,
            "stride": windows.stride,
            "padding": windows.padding,
            "dilation": windows.dilation,
            "shrink": windows.shrink,
            "wide": max(self.x.numel() + windows.reach * self.inner, self._outputs) >= WIDE_FROM,
        }

    def _over_outputs(self, mode: str, **tensors: Tensor) -> Launch:
        arguments = self._arguments(self._outputs) | tensors | {"clipped": self.windows.clipped}
        if self.windows.volume <= MOST_TAPS and mode != "gradient":
            block = self._block(self.windows.volume)
            arguments |= {"statistics": mode == "statistics", "block": block}
            return Launch(kernels.small_windows, -(-self._outputs // block), arguments)
        tile = WARPS * self.lanes * (8 if self.x.itemsize <= 4 else 4)
        row = min(power_of_two(self.windows.volume), 512 if self.inner == 1 else 16)
        block = tile // row
        arguments |= {"mode": mode, "rows": prod(self.windows.kernel[:2]) == 1, "block": block, "block_window": row}
        return Launch(kernels.large_windows, -(-self._outputs // block), arguments)

    def _over_cells(self, grad: Tensor, dx: Tensor) -> Launch:
        count = self._planes * prod(self.windows.cells)
        block = self._block(2 * (self.windows.volume + prod(self.windows.stride)))
        own = {"grad": grad, "out": dx, "cells": self.windows.cells, "covering": self.windows.covering, "block": block}
        return Launch(kernels.cell_gradient, -(-count // block), self._arguments(count) | own)

    def _over_inputs(self, centre: Tensor, scale: Tensor, shift: Tensor, dx: Tensor) -> Launch:
        count = self.x.numel()
        block = self._block(10)
        tensors = {"centre": centre, "scale": scale, "shift": shift, "out": dx}
        covering = self.windows.covering
        own = {"covering": covering, "unroll": prod(covering) <= MOST_UNROLLED, "block": block}
        return Launch(kernels.gather_windows, -(-count // block), self._arguments(count) | tensors | own)

    def _block(self, values: int) -> int:
        """Elements a program: as many a lane as make 16 bytes, fewer where each holds many values in registers."""
        most = MOST_VALUES // (values * max(self.x.itemsize // 4, 1))
        each = min(16 // self.x.itemsize, max(most, 1))
        return WARPS * self.lanes * (1 << (each.bit_length() - 1))


def forward(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """See `poolswap.ops.triton.forward`."""
    x, inner = _dense(x, windows.dims)
    y = empty_output(x, windows.output_size)
    if y.numel():
        run(_call(x, beta, inner, windows).forward(y))
    return y


def backward(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """See `poolswap.ops.triton.backward`."""
    x, inner = _dense(x, windows.dims)
    dx = torch.empty_like(x)
    if dx.numel():
        grad = grad.contiguous(memory_format=torch.contiguous_format if inner == 1 else layout_of(x))
        run(_call(x, beta, inner, windows).backward(grad, dx))
    return dx


def run(launches: Iterator[Launch]) -> None:
    """Launch on the current stream of the device that holds the tensors."""
    for launch in launches:
        with torch.cuda.device_of(launch.arguments["x"]):
            launch.kernel[(launch.grid,)](**launch.arguments, num_warps=WARPS)


def _call(x: Tensor, beta: Tensor, inner: int, windows: Windows) -> KernelCall:
    own = _spatial(x.shape[-windows.dims :], windows)
    return KernelCall(x, _beside(beta, x), inner, own, warp_size(x.device))


_spatial = lru_cache(maxsize=1024)(SpatialWindows.make)


def warp_size(device: torch.device) -> int:
    """Lanes of a warp (NVIDIA) or wavefront (AMD)."""
    return int(torch.cuda.get_device_properties(device).warp_size)


def _dense(x: Tensor, dims: int) -> tuple[Tensor, int]:
    """(x or a contiguous copy, number of elements that lie between neighbours in the last dimension)."""
    if x.dim() == dims + 2 and layout_of(x) != torch.contiguous_format:
        return x, x.shape[1]
    return x.contiguous(), 1


def _beside(beta: Tensor, x: Tensor) -> Tensor:
    """beta where the kernel can read it.

    A number on the CPU is filled in: that waits for no stream, and a CUDA graph may record it.
    """
    if beta.device == x.device:
        return beta
    if beta.device.type == "cpu":
        return torch.full((1,), beta.item(), dtype=beta.dtype, device=x.device)
    return beta.to(x.device)
