"""SoftPool's formula in Triton: what `poolswap.ops.reference` computes, for elements held in registers."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def greater(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def less(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def plus(a, b):
    return a + b


@triton.jit
def lower(value):
    """`value` for a minimum over real elements."""
    return tl.where(value == float("-inf"), float("inf"), value)


@triton.jit
def centre_of(taps, b, volume: tl.constexpr):
    """(maximum, the shift: the maximum of the real elements, for beta < 0 their minimum), NaN kept."""
    top = taps[0]
    for tap in tl.static_range(1, volume):
        top = greater(top, taps[tap])
    centre = top
    if b < 0:
        centre = lower(taps[0])
        for tap in tl.static_range(1, volume):
            centre = less(centre, lower(taps[tap]))
    return top, centre


@triton.jit
def rate_of(b, factor: tl.constexpr):
    """b * factor, kept finite so that times a distance of 0 it is 0; NaN stays."""
    largest: tl.constexpr = 1e308 if b.dtype == tl.float64 else 1e38
    return greater(less(b * factor, largest), -largest)  # tl.clamp has no float64 on sm_90


@triton.jit
def weigh(value, centre, b, shrink: tl.constexpr):
    """(e, shrink (x - centre)) of elements with this centre; a power of two no larger than 1/2 keeps both finite."""
    real = value != float("-inf")
    distance = tl.where(real, value, centre) * shrink - centre * shrink
    log2_e: tl.constexpr = 1.4426950408889634
    return tl.where(real, tl.exp2(distance * rate_of(b, log2_e / shrink)), 0.0), distance


@triton.jit
def average(taps, centre, b, volume: tl.constexpr, shrink: tl.constexpr):
    """(sum e, weighted mean of shrink (x - centre))."""
    total = tl.full(centre.shape, 0.0, centre.dtype)
    mean = tl.full(centre.shape, 0.0, centre.dtype)
    for tap in tl.static_range(volume):
        e, distance = weigh(taps[tap], centre, b, shrink)
        total += e
        mean += e * distance
    return total, mean / total


@triton.jit
def share_of(value, centre, scale, shift, b, shrink: tl.constexpr):
    """What a window whose maximum is finite gives its element `value`: g w (1 + t - sum_j w_j t_j)."""
    e, distance = weigh(value, centre, b, shrink)
    t = tl.maximum(distance * rate_of(b, 1.0 / shrink), -1000.0)  # no less, so that 0 * t is 0
    return scale * e * (shift + t)
