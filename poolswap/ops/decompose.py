"""`poolswap::soft_pool` in standard operators, for runtimes that have never heard of it.

The windows are reduced axis by axis, so the graph grows with the sum of the kernel sizes and not with their product.
Carried from axis to axis, of the elements seen so far in a window, with v = x / unit:

    m = max v        S = sum e^(beta (x - x_max))        T = sum e^(beta (x - x_max)) (v - m)

and the result is unit (m + T / S). The shift is the window's own maximum, so S is at least 1 and nothing overflows;
`unit` is at least twice the number of elements, so T does not overflow either. Padding adds nothing to S and T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from math import prod

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F

from poolswap.ops.reference import over_channels
from poolswap.ops.windows import Sizes

# A longer axis is gathered, not sliced: a fixed number of nodes, though slower ones.
_LONGEST_SLICED = 16
# log2 of what windows of unknown size are taken to hold at most.
_LARGEST_WINDOW = 24


def soft_pool_decomposition(
    x: Tensor,
    beta: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    output_size: Sizes,
) -> Tensor:
    """SoftPool of x (..., *spatial) -> (..., *output_size), in x's dtype: what `poolswap::soft_pool` is in a file.

    Finite for every finite input and any beta; half precision is computed in float32. Nothing is promised for
    infinities in x.
    """
    v = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    beta = over_channels(beta.to(v.dtype), len(kernel_size))
    unit = _unit(kernel_size)
    scale = torch.where(beta < 0, -1.0, 1.0).to(v.dtype) * unit
    lowest = torch.finfo(v.dtype).min / unit
    parts = _Parts(v / scale, None, None)
    first = x.dim() - len(kernel_size)
    steps = zip(kernel_size, stride, padding, dilation, output_size, x.shape[first:], strict=True)
    for number, step in enumerate(steps):
        parts = _reduce(parts, _Axis(first + number, *step), beta.abs() * unit, lowest)
    assert parts.weight is not None  # there is at least one axis
    assert parts.total is not None
    y = (parts.m + parts.total / parts.weight) * scale
    if any(d > 1 and p > 0 for p, d in zip(padding, dilation, strict=True)):
        y = torch.where(parts.weight > 0, y, float("-inf"))  # only here can a window be nothing but padding
    return y.to(x.dtype)


@dataclass(frozen=True)
class _Parts:
    """m, S and T; before the first axis S is one and T zero everywhere, written None."""

    m: Tensor
    weight: Tensor | None
    total: Tensor | None

    def map(self, change: Callable[[Tensor, bool], Tensor]) -> _Parts:
        """change(tensor, whether it is m) of all that is there."""
        weight, total = (None if t is None else change(t, False) for t in (self.weight, self.total))
        return _Parts(change(self.m, True), weight, total)


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis; sizes and leading padding may be symbolic."""

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
    def after(self) -> int:
        """Trailing padding that is enough. Where sizes are unknown, the extent: every window starts in the input."""
        extent = (self.kernel - 1) * self.dilation + 1
        if not self.is_static:
            return extent - 1
        return max((self.out - 1) * self.stride + extent - self.before - self.size, 0)

    def is_padded(self, element: int) -> bool:
        """Whether the n-th element of some window may be padding."""
        start = element * self.dilation - self.before
        return not self.is_static or start < 0 or (self.out - 1) * self.stride + start >= self.size

    def positions(self, elements: Tensor) -> Tensor:
        """(out, elements): where these elements of every window lie in the input; outside of it for padding."""
        starts = torch.arange(self.out, device=elements.device) * self.stride - self.before
        return starts.unsqueeze(1) + elements * self.dilation

    def is_real(self, positions: Tensor) -> Tensor:
        return (positions >= 0) & (positions < self.size)


def _unit(kernel_size: Sizes) -> float:
    """A power of two that is at least twice the number of elements of a window, or of any window if that is unknown."""
    known = all(isinstance(k, int) for k in kernel_size)
    return 2.0 ** (prod(kernel_size).bit_length() + 1 if known else _LARGEST_WINDOW)


def _reduce(parts: _Parts, axis: _Axis, rate: Tensor, lowest: float) -> _Parts:
    """The windows along one axis; `rate` is |beta| for differences of m, `lowest` at most any m."""
    if axis.is_whole:
        return _sum(parts, axis.dim, None, rate, keepdim=True)
    if axis.is_sliceable:
        return _sliced(parts, axis, rate, lowest)
    return _gathered(parts, axis, rate, lowest)


def _weigh(parts: _Parts, m: Tensor, mask: Tensor | None, rate: Tensor) -> tuple[Tensor, Tensor]:
    """What these parts of windows with maximum m add to S and T."""
    h = parts.m - m
    factor = (h * rate).exp()
    if mask is not None:
        factor = factor * mask
    if parts.weight is None or parts.total is None:
        return factor, factor * h
    weight = factor * parts.weight
    return weight, factor * parts.total + weight * h


def _sum(parts: _Parts, dim: int, mask: Tensor | None, rate: Tensor, *, keepdim: bool) -> _Parts:
    """One dimension of the parts, which holds a window's elements, summed up."""
    m = parts.m.amax(dim, keepdim=True)
    weight, total = _weigh(parts, m, mask, rate)
    return _Parts(m if keepdim else m.squeeze(dim), weight.sum(dim, keepdim), total.sum(dim, keepdim))


def _gathered(parts: _Parts, axis: _Axis, rate: Tensor, lowest: float) -> _Parts:
    positions = axis.positions(torch.arange(axis.kernel, device=parts.m.device))
    inner = (1,) * (parts.m.dim() - 1 - axis.dim)
    mask = axis.is_real(positions).reshape(-1, axis.kernel, *inner)
    index = positions.clamp(min=0).clamp(max=axis.size - 1).flatten()

    def gather(tensor: Tensor, is_m: bool) -> Tensor:
        taken = tensor.index_select(axis.dim, index).unflatten(axis.dim, (axis.out, axis.kernel))
        return torch.where(mask, taken, lowest) if is_m else taken

    return _sum(parts.map(gather), axis.dim + 1, mask.to(parts.m.dtype), rate.unsqueeze(-1), keepdim=False)


def _sliced(parts: _Parts, axis: _Axis, rate: Tensor, lowest: float) -> _Parts:
    inner = parts.m.dim() - 1 - axis.dim
    padded = parts.map(lambda tensor, is_m: _pad(tensor, axis, inner, lowest if is_m else 0.0))
    elements = [padded.map(partial(_slice, axis, n)) for n in range(axis.kernel)]
    m = reduce(torch.maximum, [element.m for element in elements])
    masks = [None if parts.weight is not None else _mask(axis, n, inner, m) for n in range(axis.kernel)]
    weights, totals = zip(*(_weigh(e, m, mask, rate) for e, mask in zip(elements, masks, strict=True)), strict=True)
    return _Parts(m, reduce(torch.add, weights), reduce(torch.add, totals))


def _pad(tensor: Tensor, axis: _Axis, inner: int, value: float) -> Tensor:
    if axis.is_static and not axis.before and not axis.after:
        return tensor
    return F.pad(tensor, [*[0, 0] * inner, axis.before, axis.after], value=value)


def _slice(axis: _Axis, element: int, tensor: Tensor, _is_m: bool) -> Tensor:
    """The n-th element of every window of the padded tensor."""
    start = element * axis.dilation
    return tensor[(slice(None),) * axis.dim + (slice(start, start + (axis.out - 1) * axis.stride + 1, axis.stride),)]


def _mask(axis: _Axis, element: int, inner: int, like: Tensor) -> Tensor | None:
    """One where the n-th element of a window is real, or None where it always is."""
    if not axis.is_padded(element):
        return None
    real = axis.is_real(axis.positions(torch.full((1,), element, device=like.device)))
    return real.to(like.dtype).reshape(-1, *(1,) * inner)
