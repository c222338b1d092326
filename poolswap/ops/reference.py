"""SoftPool in plain torch operations, written for reading: what every kernel is tested against.

Of the window's elements x_i, padding and -inf excluded:

    y = sum_i w_i x_i        w = softmax(beta x)        dy/dx_i = w_i (1 + beta (x_i - y))

Everything is written in h_i = (x_i - m) / 2 with m the window's own maximum (its minimum for beta < 0). Halving keeps
x_i - m finite for every finite input, t_i = 2 beta h_i is never positive, and y = 2 (m / 2 + sum w_i h_i) cannot
leave the window's range. A window with +inf gives +inf, one with nothing but -inf gives -inf (both with gradient 0),
and NaN gives NaN.

beta has one element, or one a channel, (C,): channels are the last dimension before the pooled ones.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.ops.layout import layout_of
from poolswap.ops.windows import Sizes, Windows

# exp() of this is 0 in every dtype. Clamping the exponent here keeps 0 * t at 0.
LOWEST_EXPONENT = -1000.0


def soft_pool_ref(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """SoftPool of x (..., *spatial) -> (..., *output_size), in x's dtype; differentiable in x and beta.

    Half precision is computed in float32. Memory is prod(kernel_size) times the output.
    """
    elements = _elements(_compute(x), windows)
    weights, _, half, centre, infinite = _weights(elements, over_channels(beta, windows.dims))
    y = 2 * (centre / 2 + (weights * half).sum(-1))  # halves: the sum alone may lie outside of the floats
    return torch.where(infinite, elements.detach().amax(-1), y).to(x.dtype)


def forward(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """`soft_pool_ref` in x's layout."""
    return soft_pool_ref(x, beta, windows).contiguous(memory_format=layout_of(x))


def backward(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """Gradient with respect to x: every window's g w_i (1 + t_i - sum_j w_j t_j), added up over the windows.

    The same as g w_i (1 + beta (x_i - y)), without the cancellation of x_i - y.
    """
    elements = _elements(_compute(x), windows)
    weights, exponent, _, _, infinite = _weights(elements, over_channels(beta, windows.dims))
    mean = (weights * exponent).sum(-1, keepdim=True)
    share = _compute(grad).unsqueeze(-1) * weights * (1 + exponent - mean)
    share = torch.where(infinite.unsqueeze(-1), 0.0, share)
    return _fold(share, x.shape[-windows.dims :], windows).to(x.dtype).contiguous(memory_format=layout_of(x))


def backward_beta(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """Gradient with respect to beta, in its shape: g times the window's weighted variance, summed over its outputs."""
    elements = _elements(_compute(x), windows)
    weights, _, half, _, infinite = _weights(elements, over_channels(beta, windows.dims))
    mean = (weights * half).sum(-1, keepdim=True)
    variance = 4 * (weights * (half - mean).square()).sum(-1)
    each = _compute(grad) * torch.where(infinite, 0.0, variance)
    total = each.sum() if beta.numel() == 1 else each.movedim(-windows.dims - 1, 0).flatten(1).sum(1)
    return total.to(beta.dtype).reshape(beta.shape)


def gradients(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """(`backward`, `backward_beta`)."""
    return backward(grad, x, beta, windows), backward_beta(grad, x, beta, windows)


def over_channels(beta: Tensor, trailing: int) -> Tensor:
    """A beta that can be multiplied with tensors of channels and so many dimensions behind them."""
    return beta if beta.dim() == 0 else beta.reshape(-1, *(1,) * trailing)


def _compute(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _reach(spatial: Sizes, windows: Windows) -> list[int]:
    """Padding needed behind each dimension for the last window to fit."""
    return [max((o - 1) * s + (k - 1) * d + 1 - p - n, 0) for n, k, s, p, d, o in zip(spatial, *windows, strict=True)]


def _elements(x: Tensor, windows: Windows) -> Tensor:
    """(..., *spatial) -> (..., *output_size, prod(kernel_size)), -inf where the window has no element."""
    kernel_size, stride, padding, dilation, output_size = windows
    dims = windows.dims
    after = _reach(x.shape[-dims:], windows)
    both = [side for pair in zip(reversed(padding), reversed(after), strict=True) for side in pair]
    x = F.pad(x, both, value=float("-inf"))
    first = x.dim() - dims
    for axis, (k, s, d, o) in enumerate(zip(kernel_size, stride, dilation, output_size, strict=True), start=first):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d].narrow(axis, 0, o)
    return x.flatten(-dims)


def _weights(elements: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(w, t, h, m, infinite): per element the weight, exponent and half distance; per window centre and +-inf flag.

    `beta` can be multiplied with the windows.
    """
    beta = beta.to(device=elements.device, dtype=elements.dtype)
    infinite = elements.detach().amax(-1).isinf()
    real = (elements != float("-inf")) & ~infinite.unsqueeze(-1)
    sign = torch.where(beta < 0, -1.0, 1.0).to(elements.dtype)
    centre = sign * (sign.unsqueeze(-1) * elements.detach()).masked_fill(~real, float("-inf")).amax(-1)
    centre = torch.where(infinite, 0.0, centre)
    half = torch.where(real, elements, centre.unsqueeze(-1)) / 2 - centre.unsqueeze(-1) / 2
    exponent = (half * beta.unsqueeze(-1) * 2).clamp(min=LOWEST_EXPONENT)
    e = torch.where(real, exponent.exp(), 0.0)
    total = e.sum(-1, keepdim=True)
    return e / torch.where(infinite.unsqueeze(-1), 1.0, total), exponent, half, centre, infinite


def _fold(share: Tensor, spatial: Sizes, windows: Windows) -> Tensor:
    """The adjoint of `_elements`: adds every window's share back to its elements."""
    kernel_size, stride, padding, dilation, output_size = windows
    after = _reach(spatial, windows)
    padded = [n + p + a for n, p, a in zip(spatial, padding, after, strict=True)]
    batch = share.shape[: -windows.dims - 1]
    total = share.new_zeros((*batch, *padded))
    for element, offsets in enumerate(product(*map(range, kernel_size))):
        region = total
        for axis, (i, s, d, o) in enumerate(zip(offsets, stride, dilation, output_size, strict=True), start=len(batch)):
            region = region.narrow(axis, i * d, (o - 1) * s + 1)[(slice(None),) * axis + (slice(None, None, s),)]
        region += share[..., element]
    for axis, (p, n) in enumerate(zip(padding, spatial, strict=True), start=len(batch)):
        total = total.narrow(axis, p, n)
    return total
