"""`poolswap::soft_pool` in standard operators, for runtimes that have never heard of it.

Of the elements x of a window, with g = max(beta (x - m), -104):

    m = max x        S = sum e^g        T = sum e^g g        y = m + T / (beta S)

The shift is the window's own maximum, so S is at least 1 and nothing overflows; e^-104 is zero in float32, so the
clamp changes no result and keeps T finite where x - m is not. Windows that hardly overlap are reduced in one step,
the others axis by axis, carrying m, S and T, so that the graph grows with the sum of the kernel sizes.

A quantiser reads the ranges of the tensors. So padding repeats the edge, which adds no value, and its exponentials are
multiplied by zero; and what stands between x and the exponentials are subtractions, divisions and maxima, which
onnxruntime leaves in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from math import inf, prod

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F

from poolswap.ops.reference import over_channels
from poolswap.ops.windows import Sizes

# A longer axis is gathered, not sliced: a fixed number of nodes, though slower ones.
_LONGEST_SLICED = 16
# Windows of at most so many elements that overlap by less than a stride are reduced in one step.
_LARGEST_STEP = 16
# log2 of what windows of unknown size are taken to hold at most.
_LARGEST_WINDOW = 24
# The differences of a window divided by less might overflow in the sum.
_SMALLEST_BETA = 1e-6
_FLOOR = {torch.float32: -104.0, torch.float64: -746.0}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def soft_pool_decomposition(
    x: Tensor,
    beta: Tensor | float,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    output_size: Sizes,
) -> Tensor:
    """SoftPool of x (..., *spatial) -> (..., *output_size), in x's dtype: what `poolswap::soft_pool` is in a file.

    Finite for every finite input and any beta; half precision is computed in float32. Nothing is promised for
    infinities in x. `beta` has one element, or one a channel; a number makes the smallest graph.
    """
    v = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    scale = _Scale.of(beta, v.dtype, kernel_size)
    lead = v.shape[: v.dim() - len(kernel_size)]
    parts = _Parts(scale.enter(v.flatten(0, len(lead) - 2) if len(lead) > 2 else v), None, None)
    first = min(len(lead), 2)
    steps = zip(kernel_size, stride, padding, dilation, output_size, x.shape[len(lead) :], strict=True)
    for axes in _group([_Axis(first, first + number, *step) for number, step in enumerate(steps)]):
        parts = _reduce(parts, axes, scale)
    if parts.weight is None or parts.total is None:  # every window is one element
        return x
    y = scale.leave(parts.m, parts.total / parts.weight)
    if any(d > 1 and p > 0 for p, d in zip(padding, dilation, strict=True)):
        y = torch.where(parts.weight > 0, y, float("-inf"))  # only here can a window be nothing but padding
    return (y.unflatten(0, lead[:-1]) if len(lead) > 2 else y).to(x.dtype)


@dataclass(frozen=True)
class _Scale:
    """What is done to x before the windows, to differences inside of them, and to the result.

    A beta that is zero, nearly zero or not known divides x by `unit`, a power of two that is at least twice the number
    of elements: differences and sums of them stay finite without the clamp, which must come after the multiplication.
    """

    sign: Tensor | float
    temperature: Tensor | float
    unit: float

    @classmethod
    def of(cls, beta: Tensor | float, dtype: torch.dtype, kernel_size: Sizes) -> _Scale:
        if isinstance(beta, Tensor):
            unit = _unit(kernel_size)
            beta = over_channels(beta.to(dtype), len(kernel_size))
            return cls(torch.where(beta < 0, -1.0, 1.0).to(dtype), 1 / (beta.abs() * unit), unit)
        unit = 1.0 if abs(beta) >= _SMALLEST_BETA else _unit(kernel_size)
        return cls(-1.0 if beta < 0 else 1.0, 1 / (abs(beta) * unit) if beta else inf, unit)

    @property
    def is_direct(self) -> bool:
        """Whether T is a sum of exponents, so that the temperature makes it one of differences."""
        return self.unit == 1.0

    def gathered(self) -> _Scale:
        """For tensors with one more dimension behind the channels."""
        apart = isinstance(self.temperature, Tensor) and self.temperature.dim() > 0
        return replace(self, temperature=self.temperature.unsqueeze(-1)) if apart else self  # type: ignore[union-attr]

    def enter(self, x: Tensor) -> Tensor:
        factor = self.sign * self.unit
        return x if isinstance(factor, float) and factor == 1.0 else x / factor

    def exponent(self, difference: Tensor) -> Tensor:
        if isinstance(self.temperature, Tensor) or self.temperature != 1.0:
            known_zero = isinstance(self.temperature, float) and self.temperature == inf
            difference = torch.zeros_like(difference) if known_zero else difference / self.temperature
        return difference.clamp(min=_FLOOR[difference.dtype])

    def leave(self, m: Tensor, mean: Tensor) -> Tensor:
        factor = self.sign * self.unit
        y = m + (mean * self.temperature if self.is_direct and self.temperature != 1.0 else mean)
        return y if isinstance(factor, float) and factor == 1.0 else y * factor


@dataclass(frozen=True)
class _Parts:
    """m, S and T; before the first step S is one and T zero everywhere, written None."""

    m: Tensor
    weight: Tensor | None
    total: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> _Parts:
        """change(tensor) of all that is there."""
        weight, total = (None if t is None else change(t) for t in (self.weight, self.total))
        return _Parts(change(self.m), weight, total)

    def weigh(self, m: Tensor, mask: Tensor | None, scale: _Scale) -> tuple[Tensor, Tensor]:
        """What these parts of windows with maximum m add to S and T."""
        difference = self.m - m
        exponent = scale.exponent(difference)
        h = exponent if scale.is_direct else difference
        factor = exponent.exp()
        if mask is not None:
            factor = factor * mask
        if self.weight is None or self.total is None:
            return factor, factor * h
        weight = factor * self.weight
        return weight, factor * self.total + weight * h


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis of a tensor whose spatial dimensions begin at `first`.

    Sizes and leading padding may be symbolic.
    """

    first: int
    dim: int
    kernel: int
    stride: int
    before: int
    dilation: int
    out: int
    size: int

    @property
    def is_static(self) -> bool:
        return all(isinstance(value, int) for value in (self.before, self.out, self.size))

    @property
    def is_identity(self) -> bool:
        return isinstance(self.kernel, int) and (self.kernel, self.stride) == (1, 1)

    @property
    def is_whole(self) -> bool:
        """Whether the only window is the whole axis, whatever its size."""
        alone = isinstance(self.out, int) and isinstance(self.before, int)
        alone = alone and (self.out, self.before, self.dilation) == (1, 0, 1)
        if isinstance(self.size, Tensor):  # TorchScript traces it; a kernel that it traces too is the size of an axis
            return alone and isinstance(self.kernel, Tensor)
        return alone and statically_known_true(self.kernel == self.size)

    @property
    def is_sliceable(self) -> bool:
        """Whether it is known how many slices to take, and from where."""
        known = isinstance(self.kernel, int) and isinstance(self.before, int)
        return known and self.kernel <= _LONGEST_SLICED

    @property
    def extent(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def rows(self) -> int:
        """Strides that the windows span."""
        return self.out + (self.extent - 1) // self.stride

    @property
    def after(self) -> int:
        """Trailing padding, negative where the last elements are in no window: up to whole strides, if all is known.

        Where sizes are unknown, the extent, as every window starts in the input, and a stride: so there are always more
        windows than wanted, and no tracer notes of one size that there are, which would shut out another.
        """
        return self.rows * self.stride - self.before - self.size if self.is_static else self.extent - 1 + self.stride

    def real(self, element: int) -> tuple[int, int] | None:
        """The windows from one number to another whose n-th element is no padding; None for all of them."""
        start = element * self.dilation - self.before
        low = max(-(start // self.stride), 0)
        high = min((self.size - 1 - start) // self.stride + 1, self.out)
        return None if (low, high) == (0, self.out) else (low, max(high, low))

    @property
    def may_miss_edge(self) -> bool:
        """Whether a window with padding may be without the element at the edge, so that repeating it adds a value."""
        padded = not self.is_static or any(self.real(element) for element in range(self.kernel))
        return self.dilation > 1 and padded

    def positions(self, elements: Tensor) -> Tensor:
        """(out, elements): where these elements of every window lie in the input; outside of it for padding."""
        starts = torch.arange(self.out, device=elements.device) * self.stride - self.before
        return starts.unsqueeze(1) + elements * self.dilation

    def inside(self, positions: Tensor) -> Tensor:
        """The closest elements of the input."""
        return positions.clamp(min=0).clamp(max=self.size - 1)


def _unit(kernel_size: Sizes) -> float:
    known = all(isinstance(k, int) for k in kernel_size)
    return 2.0 ** (prod(kernel_size).bit_length() + 1 if known else _LARGEST_WINDOW)


def _group(axes: Sequence[_Axis]) -> Iterator[list[_Axis]]:
    """Axes that are reduced in one step. Windows of stride 1 share much between them, if taken axis by axis.

    The last axis comes first: slices of short lines are the dear ones, and there is only x to slice then.
    """
    group: list[_Axis] = []
    for axis in reversed(axes):
        if axis.is_identity:
            continue
        joined = [axis, *group]
        whole = all(a.is_whole for a in joined)
        apart = all(a.is_sliceable and a.stride > 1 for a in joined) and prod(a.kernel for a in joined) <= _LARGEST_STEP
        if group and not (whole or apart):
            yield group
            joined = [axis]
        group = joined
    if group:
        yield group


def _reduce(parts: _Parts, axes: Sequence[_Axis], scale: _Scale) -> _Parts:
    if all(axis.is_whole for axis in axes):
        return _sum(parts, tuple(axis.dim for axis in axes), None, scale, keepdim=True)
    if all(axis.is_sliceable for axis in axes):
        return _sliced(parts, axes, scale)
    (axis,) = axes
    return _gathered(parts, axis, scale)


def _sum(parts: _Parts, dims: tuple[int, ...], mask: Tensor | None, scale: _Scale, *, keepdim: bool) -> _Parts:
    """Dimensions of the parts, which hold a window's elements, summed up."""
    m = parts.m.amax(dims, keepdim=True)
    weight, total = parts.weigh(m, mask, scale)
    return _Parts(m if keepdim else m.squeeze(dims[0]), weight.sum(dims, keepdim), total.sum(dims, keepdim))


def _gathered(parts: _Parts, axis: _Axis, scale: _Scale) -> _Parts:
    positions = axis.positions(torch.arange(axis.kernel, device=parts.m.device))
    index = axis.inside(positions)
    mask = (positions == index).to(parts.m.dtype).reshape(-1, axis.kernel, *(1,) * (parts.m.dim() - 1 - axis.dim))

    def gather(tensor: Tensor) -> Tensor:
        taken = tensor.index_select(axis.dim, index.flatten())
        return taken.unflatten(axis.dim, (axis.out, axis.kernel))  # type: ignore[no-any-return]

    elements = parts.map(gather)
    if axis.may_miss_edge:
        lowered = torch.where(mask > 0, elements.m, parts.m.min())
        elements = _Parts(lowered, elements.weight, elements.total)
    return _sum(elements, (axis.dim + 1,), mask, scale.gathered(), keepdim=False)


def _sliced(parts: _Parts, axes: Sequence[_Axis], scale: _Scale) -> _Parts:
    padded = parts.map(lambda tensor: _pad(tensor, axes))
    if any(axis.may_miss_edge for axis in axes):
        padded = _Parts(_lower(padded.m, parts.m.min(), axes), padded.weight, padded.total)
    m = _max_pool(padded.m, axes)
    taps = [_taps(tensor, axes) for tensor in (padded.m, padded.weight, padded.total) if tensor is not None]
    sums = []
    for number in product(*(range(axis.kernel) for axis in axes)):
        tap, *carried = (take(number) for take in taps)
        element = _Parts(tap, *(carried or (None, None)))
        sums.append(element.weigh(m, _mask(axes, number, m), scale))
    weights, totals = zip(*sums, strict=True)
    return _Parts(m, reduce(torch.add, weights), reduce(torch.add, totals))


def _pad(tensor: Tensor, axes: Sequence[_Axis]) -> Tensor:
    """The edges repeated, and elements behind the last window left out."""
    spatial = tensor.dim() - axes[0].first
    amounts = [0, 0] * spatial
    for axis in axes:
        if axis.is_static and axis.after < 0:
            tensor = tensor.narrow(axis.dim, 0, axis.size + axis.after)
        inner = 2 * (tensor.dim() - 1 - axis.dim)
        amounts[inner : inner + 2] = axis.before, max(axis.after, 0)
    return F.pad(tensor, amounts, mode="replicate") if any(amounts) else tensor


def _lower(padded: Tensor, value: Tensor, axes: Sequence[_Axis]) -> Tensor:
    """The padded tensor with `value` for padding."""
    for axis in axes:
        places = torch.arange(padded.shape[axis.dim], device=padded.device) - axis.before
        real = places == axis.inside(places)
        padded = torch.where(real.reshape(-1, *(1,) * (padded.dim() - 1 - axis.dim)), padded, value)
    return padded


def _max_pool(padded: Tensor, axes: Sequence[_Axis]) -> Tensor:
    sizes = {axis.dim: (axis.kernel, axis.stride, axis.dilation) for axis in axes}
    kernel, stride, dilation = zip(*(sizes.get(d, (1, 1, 1)) for d in range(axes[0].first, padded.dim())), strict=True)
    m: Tensor = _MAX_POOL[len(kernel)](padded, kernel, stride, 0, dilation)
    for axis in axes:
        if not axis.is_static:  # it is padded more than need be
            m = m.narrow(axis.dim, 0, axis.out)
    return m


def _taps(tensor: Tensor, axes: Sequence[_Axis]) -> Callable[[tuple[int, ...]], Tensor]:
    """What gives the elements of these numbers of every window of the padded tensor.

    Where sizes are known, a stride is made a dimension first (one at a time: Core ML knows five): then its phases are
    gathered once, each serves several elements, and their slices are contiguous, so that runtimes copy them by lines.
    """
    strides = [axis.stride if axis.is_static else 1 for axis in axes]
    phases: dict[tuple[int, ...], Tensor] = {(): tensor}
    for axis, stride in zip(axes, strides, strict=True):
        if stride == 1:
            phases = {(*key, 0): found for key, found in phases.items()}
            continue
        used = sorted({element * axis.dilation % stride for element in range(axis.kernel)})
        split = {key: found.unflatten(axis.dim, (axis.rows, stride)) for key, found in phases.items()}
        phases = {(*key, phase): found.select(axis.dim + 1, phase) for key, found in split.items() for phase in used}

    def take(number: tuple[int, ...]) -> Tensor:
        offsets = [n * axis.dilation for n, axis in zip(number, axes, strict=True)]
        tap = phases[tuple(offset % stride for offset, stride in zip(offsets, strides, strict=True))]
        for axis, offset, stride in zip(axes, offsets, strides, strict=True):
            start, step = offset // stride, axis.stride // stride
            tap = tap[(slice(None),) * axis.dim + (slice(start, start + (axis.out - 1) * step + 1, step),)]
        return tap

    return take


def _mask(axes: Sequence[_Axis], number: tuple[int, ...], like: Tensor) -> Tensor | None:
    """One where the elements of these numbers are real, or None where all are."""
    if not all(axis.is_static for axis in axes):
        masks = [_measured_mask(axis, element, like) for axis, element in zip(axes, number, strict=True)]
        return reduce(torch.mul, masks)
    ranges = {axis.dim: axis.real(element) for axis, element in zip(axes, number, strict=True)}
    if not any(ranges.values()):
        return None
    sizes = [n if isinstance(n, int) else 1 for n in like.shape[axes[0].first :]]  # whole maps multiply the fastest
    lines = []
    for dim, size in enumerate(sizes, axes[0].first):
        low, high = ranges.get(dim) or (0, size)
        place = torch.arange(size)  # a list would become a constant, which no export takes beside a trained beta
        lines.append((place >= low).to(like) * (place < high).to(like))
    return reduce(lambda mask, line: mask.unsqueeze(-1) * line, lines)


def _measured_mask(axis: _Axis, element: int, like: Tensor) -> Tensor:
    positions = axis.positions(torch.full((1,), element, device=like.device))
    return (positions == axis.inside(positions)).to(like.dtype).reshape(-1, *(1,) * (like.dim() - 1 - axis.dim))
