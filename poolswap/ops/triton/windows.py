"""The windows of one call as the kernels see them: three spatial dimensions, and what follows from their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from poolswap.ops.windows import Sizes, Windows

Triple = tuple[int, ...]

# A window of up to this many elements is held in registers.
MOST_TAPS = 32
# `cell_gradient` evaluates every window that covers a cell anew. Up to this many window elements per input that should
# cost less than writing three numbers per output and reading them back: an estimate from byte and instruction counts.
MOST_TAPS_PER_INPUT = 4


@dataclass(frozen=True)
class SpatialWindows:
    """Windows over (T, H, W): every field has one int a dimension."""

    size: Triple
    kernel: Triple
    stride: Triple
    padding: Triple
    dilation: Triple
    output_size: Triple

    @classmethod
    def make(cls, size: Sizes, windows: Windows) -> SpatialWindows:
        """From the spatial input size and the operator's five lists, in a normal form.

        Missing dimensions have size 1. Dimensions that every window covers whole are joined with the one before
        them: what is left of global pooling is one long row.
        """
        rows = [_Dimension.make(*row) for row in zip(size, *windows, strict=True)]
        while len(rows) > 1 and rows[-1].whole and rows[-2].dilation == 1:
            inside = rows.pop()
            rows[-1] = rows[-1].joined(inside.size)
        rows = [_Dimension.make(1, 1, 1, 0, 1, 1)] * (3 - len(rows)) + rows
        columns = zip(*((r.size, r.kernel, r.stride, r.padding, r.dilation, r.output) for r in rows), strict=True)
        return cls(*columns)

    @cached_property
    def volume(self) -> int:
        """Elements of a window, padding included."""
        return prod(self.kernel)

    @cached_property
    def shrink(self) -> float:
        """A power of two that makes sums of distances in a window finite."""
        return 0.5 / power_of_two(self.volume)

    @cached_property
    def extent(self) -> Triple:
        """From a window's first element to its last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @cached_property
    def clipped(self) -> bool:
        """Whether some window reaches over the input's edge."""
        rows = zip(self.size, self.extent, self.stride, self.padding, self.output_size, strict=True)
        return any(p > 0 or (o - 1) * s - p + e > n for n, e, s, p, o in rows)

    @cached_property
    def covering(self) -> Triple:
        """At most this many windows cover an element."""
        return tuple(-(-e // s) for e, s in zip(self.extent, self.stride, strict=True))

    @cached_property
    def complete(self) -> bool:
        """Whether every element lies in a window, given that windows do not overlap."""
        rows = zip(self.size, self.kernel, self.stride, self.padding, self.output_size, strict=True)
        return all(k == s and o * s - p >= n for n, k, s, p, o in rows)

    @cached_property
    def reach(self) -> int:
        """How many elements outside the input an offset may lie: from a window's first element to its last."""
        t, h, w = self.extent
        return (t * self.size[1] + h) * self.size[2] + w

    @cached_property
    def cells(self) -> Triple:
        """How many cells of `stride` elements, starting where windows start, it takes to cover the input."""
        rows = zip(self.size, self.stride, self.padding, strict=True)
        return tuple(-(-(n + p) // s) - p // s for n, s, p in rows)

    @cached_property
    def by_cells(self) -> bool:
        """Whether the gradient is best computed by evaluating windows anew; see MOST_TAPS_PER_INPUT."""
        cell, taps = prod(self.stride), prod(self.covering) * self.volume
        return self.volume + cell <= MOST_TAPS and taps <= MOST_TAPS_PER_INPUT * cell

    @cached_property
    def scratch(self) -> bool:
        """Whether the gradient goes through stored statistics of the windows."""
        return not self.by_cells and prod(self.covering) > 1


@dataclass(frozen=True)
class _Dimension:
    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    output: int

    @classmethod
    def make(cls, size: int, kernel: int, stride: int, padding: int, dilation: int, output: int) -> _Dimension:
        """With the parts that make no difference set so that they are easy: one window, one element."""
        dilation = dilation if kernel > 1 else 1
        stride = stride if output > 1 else (kernel - 1) * dilation + 1
        return cls(size, kernel, stride, padding, dilation, output)

    @property
    def whole(self) -> bool:
        return self.output == 1 and self.kernel == self.size and self.padding == 0 and self.dilation == 1

    def joined(self, row: int) -> _Dimension:
        """This dimension with each of its elements a row of so many."""
        sizes: dict[str, Any] = {f: getattr(self, f) * row for f in ("size", "kernel", "stride", "padding")}
        return _Dimension(dilation=1, output=self.output, **sizes)


def power_of_two(value: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << (value - 1).bit_length()
