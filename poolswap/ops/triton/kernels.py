"""The Triton kernels of SoftPool; `poolswap.ops.triton.launch` decides which of them runs and with what.

A tensor is seen as (outer, T, H, W, inner), dense in that order: contiguous (N, C, *spatial) has outer = N C and
inner = 1, channels_last has outer = N and inner = C, and missing spatial dimensions have size 1. Triples are
(T, H, W). `kernel`, `stride`, `padding`, `dilation` mean what they mean in `poolswap.ops.reference`, whose formula and
whose handling of infinities and NaN every kernel repeats. Arithmetic is float64 for float64 and float32 otherwise.

`wide` makes every offset 64 bits; `clipped` says that some window reaches over the input's edge.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, no-any-return, assignment"
from __future__ import annotations

import triton
import triton.language as tl
from triton import constexpr_function

from poolswap.ops.triton.formula import average, centre_of, greater, less, lower, plus, rate_of, share_of, weigh


@triton.jit
def small_windows(
    x,
    beta,
    grad,
    out,
    scale,
    shift,
    size,
    output_size,
    inner,
    count,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    padding: tl.constexpr,
    dilation: tl.constexpr,
    clipped: tl.constexpr,
    wide: tl.constexpr,
    shrink: tl.constexpr,
    statistics: tl.constexpr,
    block: tl.constexpr,
):
    """One lane an output, the window's elements in registers: one load of each.

    Forward: `out` gets y. With `statistics`: `out` gets the centre in x's dtype (+inf marks a window without gradient),
    `scale` g / sum_j e_j and `shift` 1 - sum_j w_j t_j, which is all that `gather_windows` needs.
    """
    index, keep = _indices(count, wide, block)
    outer, t, h, w, channel = _split(index, output_size, inner)
    first = (t * stride[0] - padding[0], h * stride[1] - padding[1], w * stride[2] - padding[2])
    compute: tl.constexpr = _compute(x.dtype.element_ty)
    taps = _load_window(x, outer, first, channel, size, inner, keep, kernel, dilation, clipped, compute)
    volume: tl.constexpr = kernel[0] * kernel[1] * kernel[2]
    b = tl.load(beta).to(compute)
    top, centre = centre_of(taps, b, volume)
    total, mean = average(taps, centre, b, volume, shrink)
    if statistics:
        g = tl.load(grad + index, mask=keep, other=0.0).to(compute)
        _store_statistics(out, scale, shift, index, keep, top, centre, g / total, 1.0 - mean * rate_of(b, 1.0 / shrink))
    else:
        _store_output(out, index, keep, top, centre, mean, shrink)


@triton.jit
def large_windows(
    x,
    beta,
    grad,
    out,
    scale,
    shift,
    size,
    output_size,
    inner,
    count,
    kernel,
    stride,
    padding,
    dilation,
    clipped: tl.constexpr,
    rows: tl.constexpr,
    wide: tl.constexpr,
    shrink: tl.constexpr,
    mode: tl.constexpr,
    block: tl.constexpr,
    block_window: tl.constexpr,
):
    """A tile of outputs by window elements; the window is read again from cache for its sums.

    `mode` "forward" and "statistics" are those of `small_windows`; "gradient" writes dx to `out` for windows that do
    not overlap, where every element belongs to one window at most. `rows` says that windows are one line each, as all
    of global pooling's are.
    """
    index, keep = _indices(count, wide, block)
    outer, t, h, w, channel = _split(index, output_size, inner)
    t = (t * stride[0] - padding[0])[:, None]
    h = (h * stride[1] - padding[1])[:, None]
    w = (w * stride[2] - padding[2])[:, None]
    outer, channel, inside = outer[:, None], channel[:, None], keep[:, None]
    compute: tl.constexpr = _compute(x.dtype.element_ty)
    b = tl.load(beta).to(compute)
    volume = kernel[0] * kernel[1] * kernel[2]

    top = tl.full((block, block_window), float("-inf"), compute)
    low = tl.full((block, block_window), float("inf"), compute)
    for start in range(0, volume, block_window):
        offset, mask = _tile(
            outer, t, h, w, channel, start, size, inner, inside, kernel, dilation, clipped, rows, block_window
        )
        v = tl.load(x + offset, mask=mask, other=float("-inf")).to(compute)
        top = greater(top, v)
        if b < 0:
            low = less(low, lower(v))
    top = tl.reduce(top, 1, greater)
    centre = top
    if b < 0:
        centre = tl.reduce(low, 1, less)

    total = tl.full((block, block_window), 0.0, compute)
    mean = tl.full((block, block_window), 0.0, compute)
    for start in range(0, volume, block_window):
        offset, mask = _tile(
            outer, t, h, w, channel, start, size, inner, inside, kernel, dilation, clipped, rows, block_window
        )
        v = tl.load(x + offset, mask=mask, other=float("-inf")).to(compute)
        e, distance = weigh(v, centre[:, None], b, shrink)
        total += e
        mean += e * distance
    total = tl.reduce(total, 1, plus)
    mean = tl.reduce(mean, 1, plus) / total
    if mode == "forward":
        _store_output(out, index, keep, top, centre, mean, shrink)
    else:
        g = tl.load(grad + index, mask=keep, other=0.0).to(compute) / total
        rest = 1.0 - mean * rate_of(b, 1.0 / shrink)
        if mode == "statistics":
            _store_statistics(out, scale, shift, index, keep, top, centre, g, rest)
        else:
            endless = (tl.abs(top) == float("inf"))[:, None]
            for start in range(0, volume, block_window):
                offset, mask = _tile(
                    outer, t, h, w, channel, start, size, inner, inside, kernel, dilation, clipped, rows, block_window
                )
                v = tl.load(x + offset, mask=mask, other=float("-inf")).to(compute)
                share = tl.where(endless, 0.0, share_of(v, centre[:, None], g[:, None], rest[:, None], b, shrink))
                tl.store(out + offset, share.to(out.dtype.element_ty), mask=mask)


@triton.jit
def gather_windows(
    x,
    beta,
    centre,
    scale,
    shift,
    out,
    size,
    output_size,
    inner,
    count,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    padding: tl.constexpr,
    dilation: tl.constexpr,
    covering: tl.constexpr,
    unroll: tl.constexpr,
    wide: tl.constexpr,
    shrink: tl.constexpr,
    block: tl.constexpr,
):
    """One lane an input element: dx is the sum over the windows that may cover it, at most `covering` a dimension."""
    index, keep = _indices(count, wide, block)
    outer, t, h, w, channel = _split(index, size, inner)
    compute: tl.constexpr = _compute(x.dtype.element_ty)
    v = tl.load(x + index, mask=keep, other=0.0).to(compute)
    b = tl.load(beta).to(compute)
    place = (t + padding[0], h + padding[1], w + padding[2])
    total = tl.full((block,), 0.0, compute)
    candidates: tl.constexpr = covering[0] * covering[1] * covering[2]
    if unroll:
        for back in tl.static_range(candidates):
            total += _from_window(
                back, v, b, centre, scale, shift, outer, place, channel, output_size, inner, keep,
                kernel, stride, dilation, covering, compute, shrink,
            )  # fmt: skip
    else:
        for back in range(candidates):
            total += _from_window(
                back, v, b, centre, scale, shift, outer, place, channel, output_size, inner, keep,
                kernel, stride, dilation, covering, compute, shrink,
            )  # fmt: skip
    tl.store(out + index, total.to(out.dtype.element_ty), mask=keep)


@triton.jit
def cell_gradient(
    x,
    beta,
    grad,
    out,
    size,
    output_size,
    cells,
    inner,
    count,
    kernel: tl.constexpr,
    stride: tl.constexpr,
    padding: tl.constexpr,
    dilation: tl.constexpr,
    covering: tl.constexpr,
    wide: tl.constexpr,
    shrink: tl.constexpr,
    block: tl.constexpr,
):
    """One lane a cell of stride[0] x stride[1] x stride[2] inputs that starts where a window starts.

    The windows that cover a cell are the same few steps back for every cell, and so are the taps of theirs that fall
    into it. Each lane computes these windows anew and writes its cell: dx in one pass, nothing stored between.
    """
    index, keep = _indices(count, wide, block)
    outer, t, h, w, channel = _split(index, cells, inner)
    t, h, w = t + padding[0] // stride[0], h + padding[1] // stride[1], w + padding[2] // stride[2]
    compute: tl.constexpr = _compute(x.dtype.element_ty)
    b = tl.load(beta).to(compute)
    volume: tl.constexpr = kernel[0] * kernel[1] * kernel[2]
    shares = ()
    for _ in tl.static_range(stride[0] * stride[1] * stride[2]):
        shares += (tl.full((block,), 0.0, compute),)
    for back in tl.static_range(covering[0] * covering[1] * covering[2]):
        ot = t - back // (covering[1] * covering[2])
        oh = h - back // covering[2] % covering[1]
        ow = w - back % covering[2]
        exists = keep & _within(ot, output_size[0]) & _within(oh, output_size[1]) & _within(ow, output_size[2])
        first = (ot * stride[0] - padding[0], oh * stride[1] - padding[1], ow * stride[2] - padding[2])
        taps = _load_window(x, outer, first, channel, size, inner, exists, kernel, dilation, True, compute)
        top, centre = centre_of(taps, b, volume)
        total, mean = average(taps, centre, b, volume, shrink)
        rest = 1.0 - mean * rate_of(b, 1.0 / shrink)
        endless = tl.abs(top) == float("inf")
        at = (((outer * output_size[0] + ot) * output_size[1] + oh) * output_size[2] + ow) * inner + channel
        g = tl.load(grad + at, mask=exists, other=0.0).to(compute) / total
        for tap in tl.static_range(volume):
            if _cell_of(tap, back, kernel, stride, dilation, covering) >= 0:
                share = tl.where(endless, 0.0, share_of(taps[tap], centre, g, rest, b, shrink))
                shares = _add_at(shares, _cell_of(tap, back, kernel, stride, dilation, covering), share)
    for cell in tl.static_range(stride[0] * stride[1] * stride[2]):
        it = t * stride[0] - padding[0] + cell // (stride[1] * stride[2])
        ih = h * stride[1] - padding[1] + cell // stride[2] % stride[1]
        iw = w * stride[2] - padding[2] + cell % stride[2]
        real = keep & _within(it, size[0]) & _within(ih, size[1]) & _within(iw, size[2])
        at = (((outer * size[0] + it) * size[1] + ih) * size[2] + iw) * inner + channel
        tl.store(out + at, shares[cell].to(out.dtype.element_ty), mask=real)


@triton.jit
def _indices(count, wide: tl.constexpr, block: tl.constexpr):
    """(flat indices of this program, which of them exist)."""
    program = tl.program_id(0)
    if wide:
        program = program.to(tl.int64)
    index = program * block + tl.arange(0, block)
    return index, index < count


@triton.jit
def _split(index, size, inner):
    """Flat index -> (outer, t, h, w, channel)."""
    channel = index % inner
    rest = index // inner
    w = rest % size[2]
    rest = rest // size[2]
    h = rest % size[1]
    rest = rest // size[1]
    return rest // size[0], rest % size[0], h, w, channel


@constexpr_function
def _compute(element):
    """Type that elements of this type are computed in."""
    return tl.float64 if element == tl.float64 else tl.float32


@triton.jit
def _within(value, size):
    """0 <= value < size, in one comparison."""
    unsigned: tl.constexpr = tl.uint64 if value.dtype == tl.int64 else tl.uint32
    return value.to(unsigned) < size


@triton.jit
def _load_window(
    x, outer, first, channel, size, inner, keep,
    kernel: tl.constexpr, dilation: tl.constexpr, clipped: tl.constexpr, compute: tl.constexpr,
):  # fmt: skip
    """The window's elements in the type of computation, -inf where there is none."""
    origin = (((outer * size[0] + first[0]) * size[1] + first[1]) * size[2] + first[2]) * inner + channel
    taps = ()
    for line in tl.static_range(kernel[0] * kernel[1]):
        t = tl.full((), line // kernel[1] * dilation[0], origin.dtype)
        h = line % kernel[1] * dilation[1]
        # With `inner` 1 the taps of a line differ by a constant, which the load instruction adds by itself.
        start = x + (origin + (t * size[1] + h) * size[2] * inner)
        for column in tl.static_range(kernel[2]):
            w = tl.full((), column * dilation[2], origin.dtype)
            mask = keep
            if clipped:
                mask = mask & _within(first[0] + t, size[0]) & _within(first[1] + h, size[1])
                mask = mask & _within(first[2] + w, size[2])
            taps += (tl.load(start + w * inner, mask=mask, other=float("-inf")).to(compute),)
    return taps


@triton.jit
def _tile(
    outer, t, h, w, channel, start, size, inner, keep, kernel, dilation,
    clipped: tl.constexpr, rows: tl.constexpr, block_window: tl.constexpr,
):  # fmt: skip
    """(offsets, mask) of `block_window` elements of every window, from element `start` on."""
    tap = (start + tl.arange(0, block_window))[None, :]
    if rows:
        w += tap * dilation[2]
    else:
        t += tap // (kernel[1] * kernel[2]) * dilation[0]
        h += tap // kernel[2] % kernel[1] * dilation[1]
        w += tap % kernel[2] * dilation[2]
    mask = keep & (tap < kernel[0] * kernel[1] * kernel[2])
    if clipped:
        mask = mask & _within(t, size[0]) & _within(h, size[1]) & _within(w, size[2])
    return (((outer * size[0] + t) * size[1] + h) * size[2] + w) * inner + channel, mask


@constexpr_function
def _cell_of(tap, back, kernel, stride, dilation, covering):
    """Where in a cell this tap falls of the window that starts `back` steps before the cell, or -1."""
    steps = (back // (covering[1] * covering[2]), back // covering[2] % covering[1], back % covering[2])
    taps = (tap // (kernel[1] * kernel[2]), tap // kernel[2] % kernel[1], tap % kernel[2])
    t, h, w = (i * d - b * s for i, d, b, s in zip(taps, dilation, steps, stride, strict=True))
    if not (0 <= t < stride[0] and 0 <= h < stride[1] and 0 <= w < stride[2]):
        return -1
    return (t * stride[1] + h) * stride[2] + w


@triton.jit
def _add_at(values, place: tl.constexpr, value):
    return values[:place] + (values[place] + value,) + values[place + 1 :]  # noqa: RUF005 - Triton has no starred tuples


@triton.jit
def _from_window(
    back, v, b, centre, scale, shift, outer, place, channel, output_size, inner, keep,
    kernel: tl.constexpr, stride: tl.constexpr, dilation: tl.constexpr, covering: tl.constexpr, compute: tl.constexpr,
    shrink: tl.constexpr,
):  # fmt: skip
    """The share of the window `back` steps before the last that starts no later than the element."""
    ot = place[0] // stride[0] - back // (covering[1] * covering[2])
    oh = place[1] // stride[1] - back // covering[2] % covering[1]
    ow = place[2] // stride[2] - back % covering[2]
    mask = keep & _covers(place[0] - ot * stride[0], kernel[0], dilation[0]) & _within(ot, output_size[0])
    mask = mask & _covers(place[1] - oh * stride[1], kernel[1], dilation[1]) & _within(oh, output_size[1])
    mask = mask & _covers(place[2] - ow * stride[2], kernel[2], dilation[2]) & _within(ow, output_size[2])
    at = (((outer * output_size[0] + ot) * output_size[1] + oh) * output_size[2] + ow) * inner + channel
    m = tl.load(centre + at, mask=mask, other=float("inf")).to(compute)
    g = tl.load(scale + at, mask=mask, other=0.0)
    rest = tl.load(shift + at, mask=mask, other=0.0)
    return tl.where(m == float("inf"), 0.0, share_of(v, m, g, rest, b, shrink))


@triton.jit
def _covers(distance, kernel: tl.constexpr, dilation: tl.constexpr):
    """Whether a window has a tap this far behind its start."""
    return (distance <= (kernel - 1) * dilation) & (distance % dilation == 0)


@triton.jit
def _store_output(out, index, keep, top, centre, mean, shrink: tl.constexpr):
    """y = centre + the mean distance, added while small; the maximum itself where that is infinite."""
    y = (centre * shrink + mean) * (1.0 / shrink)
    y = tl.where(tl.abs(top) == float("inf"), top, y)
    tl.store(out + index, y.to(out.dtype.element_ty), mask=keep)


@triton.jit
def _store_statistics(out, scale, shift, index, keep, top, centre, g, rest):
    centre = tl.where(tl.abs(top) == float("inf"), float("inf"), centre)
    tl.store(out + index, centre.to(out.dtype.element_ty), mask=keep)
    tl.store(scale + index, g, mask=keep)
    tl.store(shift + index, rest, mask=keep)
