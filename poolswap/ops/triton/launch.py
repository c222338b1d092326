"""Which Triton kernels a call runs, with which arguments; and how many bytes they move.

The forward is one kernel. The backward saves nothing but x: it evaluates the windows anew and gathers, so it needs no
atomics and gives the same bits every time. It is one of

- `cell_gradient`, one pass, where few windows cover an element (kernel 2 or 3 with stride 2, kernel = stride);
- `large_windows` in mode "gradient", one pass, for long windows that do not overlap (global pooling);
- `small_windows` or `large_windows` with statistics, three numbers per output, then `gather_windows`, for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from poolswap.ops.reference import Sizes
from poolswap.ops.soft_pool import empty_output
from poolswap.ops.triton import kernels
from poolswap.ops.triton.windows import MOST_TAPS, Windows, power_of_two, span

WARPS = 4
# From this many elements on, offsets take 64 bits. Below 2**31 by the largest block.
WIDE_FROM = 2**31 - 2**16
MOST_UNROLLED = 9


@dataclass(frozen=True)
class Launch:
    """One kernel launch: arguments by name, compile-time ones included, over a one-dimensional grid."""

    kernel: Any
    grid: int
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Traffic:
    """Bytes of one call. `forward` (x, y) and `backward` (x, grad, dx) count what no implementation can avoid, each
    tensor once; `backward_scratch` what these kernels move beyond that: statistics written and read, x read again, dx
    zeroed first.
    """

    forward: int
    backward: int
    backward_scratch: int


def forward(x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    """See `poolswap.ops.triton.forward`."""
    dense, inner = _dense(x, len(windows[0]))
    out = empty_output(x, windows[-1])
    y = out if dense is x else empty_output(dense, windows[-1])
    if y.numel():
        run(forward_launches(dense, _beside(beta, x), y, inner, Windows.make(x.shape[-len(windows[0]) :], *windows)))
    return out if y is out else out.copy_(y)


def backward(grad: Tensor, x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    """See `poolswap.ops.triton.backward`."""
    spatial = x.shape[-len(windows[0]) :]
    dense, inner = _dense(x, len(windows[0]))
    out = empty_output(x, spatial)
    dx = out if dense is x else empty_output(dense, spatial)
    if dx.numel():
        grad = grad.contiguous() if inner == 1 else grad.contiguous(memory_format=_channels_last(x))
        run(backward_launches(grad, dense, _beside(beta, x), dx, inner, Windows.make(spatial, *windows)))
    return out if dx is out else out.copy_(dx)


def run(launches: Iterator[Launch]) -> None:
    """Launch on the current stream of the device that holds the tensors."""
    for launch in launches:
        with torch.cuda.device_of(launch.arguments["x"]):
            launch.kernel[(launch.grid,)](**launch.arguments, num_warps=WARPS)


def forward_launches(
    x: Tensor, beta: Tensor, y: Tensor, inner: int, windows: Windows, lanes: int | None = None
) -> Iterator[Launch]:
    """The kernel that writes y. x and y are dense, (outer, *spatial, inner) in memory; `lanes` a warp."""
    yield _windows_launch("forward", x, beta, x, y, y, y, inner, windows, lanes)


def backward_launches(
    grad: Tensor, x: Tensor, beta: Tensor, dx: Tensor, inner: int, windows: Windows, lanes: int | None = None
) -> Iterator[Launch]:
    """The kernels that write dx, in order. grad, x and dx are laid out alike."""
    if windows.by_cells:
        yield _cells_launch(grad, x, beta, dx, inner, windows, lanes)
    elif not windows.scratch:
        if not windows.complete:
            dx.zero_()
        yield _windows_launch("gradient", x, beta, grad, dx, dx, dx, inner, windows, lanes)
    else:
        compute = torch.promote_types(x.dtype, torch.float32)
        centre = torch.empty_like(grad)
        scale, shift = (torch.empty_like(grad, dtype=compute) for _ in range(2))
        yield _windows_launch("statistics", x, beta, grad, centre, scale, shift, inner, windows, lanes)
        yield _gather_launch(x, beta, centre, scale, shift, dx, inner, windows, lanes)


def traffic(x: Tensor, *windows: Sizes) -> Traffic:
    """Bytes that SoftPool of x moves, for a roofline; x may be on any device, meta included."""
    dims = len(windows[0])
    own = Windows.make(x.shape[-dims:], *windows)
    inputs = x.numel()
    outputs = prod(x.shape[:-dims]) * prod(own.output_size)
    compute = torch.promote_types(x.dtype, torch.float32).itemsize
    scratch = 0
    if own.scratch:
        scratch = outputs * 2 * (x.itemsize + 2 * compute) + inputs * x.itemsize
    elif not own.by_cells and not own.complete:
        scratch = inputs * x.itemsize
    return Traffic((inputs + outputs) * x.itemsize, (2 * inputs + outputs) * x.itemsize, scratch)


def _windows_launch(
    mode: str,
    x: Tensor,
    beta: Tensor,
    grad: Tensor,
    out: Tensor,
    scale: Tensor,
    shift: Tensor,
    inner: int,
    windows: Windows,
    lanes: int | None,
) -> Launch:
    outputs = x.numel() // prod(windows.size) * prod(windows.output_size)
    arguments = {
        "x": x,
        "beta": beta,
        "grad": grad,
        "out": out,
        "scale": scale,
        "shift": shift,
        "size": windows.size,
        "output_size": windows.output_size,
        "inner": inner,
        "outputs": outputs,
        "kernel": windows.kernel,
        "stride": windows.stride,
        "padding": windows.padding,
        "dilation": windows.dilation,
        "wide": _wide(x, outputs, inner, windows),
        "shrink": 0.5 / power_of_two(windows.volume),
    }
    if windows.volume <= MOST_TAPS and mode != "gradient":
        block = _block(x, inner, windows.volume, lanes)
        arguments |= {"clipped": windows.clipped, "statistics": mode == "statistics", "block": block}
        return Launch(kernels.small_windows, -(-outputs // block), arguments)
    tile = 8 * WARPS * _lanes(lanes)
    row = min(power_of_two(windows.volume), 512 if inner == 1 else 16)
    arguments |= {"mode": mode, "block": tile // row, "block_window": row}
    return Launch(kernels.large_windows, -(-outputs * row // tile), arguments)


def _cells_launch(
    grad: Tensor, x: Tensor, beta: Tensor, dx: Tensor, inner: int, windows: Windows, lanes: int | None
) -> Launch:
    cells = x.numel() // prod(windows.size) * prod(windows.cells)
    block = _block(x, inner, windows.volume + 2 * prod(windows.stride), lanes)
    arguments = {
        "x": x,
        "beta": beta,
        "grad": grad,
        "out": dx,
        "size": windows.size,
        "output_size": windows.output_size,
        "inner": inner,
        "cell_size": windows.cells,
        "cells": cells,
        "kernel": windows.kernel,
        "stride": windows.stride,
        "padding": windows.padding,
        "dilation": windows.dilation,
        "covering": windows.covering,
        "wide": _wide(x, cells, inner, windows),
        "block": block,
    }
    return Launch(kernels.cell_gradient, -(-cells // block), arguments)


def _gather_launch(
    x: Tensor,
    beta: Tensor,
    centre: Tensor,
    scale: Tensor,
    shift: Tensor,
    dx: Tensor,
    inner: int,
    windows: Windows,
    lanes: int | None,
) -> Launch:
    block = _block(x, inner, 10, lanes)
    arguments = {
        "x": x,
        "beta": beta,
        "centre": centre,
        "scale": scale,
        "shift": shift,
        "out": dx,
        "size": windows.size,
        "output_size": windows.output_size,
        "inner": inner,
        "inputs": x.numel(),
        "kernel": windows.kernel,
        "stride": windows.stride,
        "padding": windows.padding,
        "dilation": windows.dilation,
        "covering": windows.covering,
        "unroll": prod(windows.covering) <= MOST_UNROLLED,
        "wide": _wide(x, centre.numel(), inner, windows),
        "block": block,
    }
    return Launch(kernels.gather_windows, -(-x.numel() // block), arguments)


def _dense(x: Tensor, dims: int) -> tuple[Tensor, int]:
    """(x or a contiguous copy, number of elements that lie between spatial neighbours)."""
    if x.is_contiguous():
        return x, 1
    if x.dim() == dims + 2 and dims > 1 and x.is_contiguous(memory_format=_channels_last(x)):
        return x, x.shape[1]
    return x.contiguous(), 1


def _channels_last(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _beside(beta: Tensor, x: Tensor) -> Tensor:
    """beta where the kernel can read it. A number on the CPU is filled in: that waits for no stream, and a CUDA graph
    may record it.
    """
    if beta.device == x.device:
        return beta
    if beta.device.type == "cpu":
        return torch.full((1,), beta.item(), dtype=beta.dtype, device=x.device)
    return beta.to(x.device)


def _lanes(lanes: int | None) -> int:
    return lanes or (64 if torch.version.hip else 32)


def _block(x: Tensor, inner: int, values: int, lanes: int | None) -> int:
    """Elements a program: as many a lane as make 16 bytes, fewer where each holds many values in registers.

    Lanes that load whole channel vectors may hold more than those that load one element at a time.
    """
    words = max(x.itemsize // 4, 1)
    each = min(16 // x.itemsize, max((40 if inner == 1 else 80) // (values * words), 1))
    return WARPS * _lanes(lanes) * (1 << (each.bit_length() - 1))


def _wide(x: Tensor, count: int, inner: int, windows: Windows) -> bool:
    """Whether any offset, those just outside the tensors included, needs 64 bits."""
    reach = span(windows.size, windows.extent) * inner
    return max(x.numel() + reach, count) >= WIDE_FROM
