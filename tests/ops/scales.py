"""What a kernel's errors are measured against: the largest of the numbers that it adds up, in float64."""

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.ops.reference import over_channels
from poolswap.ops.windows import Windows


def elements(x: Tensor, windows: Windows) -> Tensor:
    """(..., *spatial) -> (..., *output_size, K): the K elements of each window, -inf for those outside of x."""
    sides = []
    for n, k, s, p, d, o in zip(x.shape[-windows.dims :], *windows, strict=True):
        sides = [p, max((o - 1) * s + (k - 1) * d + 1 - p - n, 0), *sides]
    x = F.pad(x, sides, value=float("-inf"))
    first = x.dim() - windows.dims
    for axis, (k, s, _, d, o) in enumerate(zip(*windows, strict=True), start=first):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d].narrow(axis, 0, o)
    return x.flatten(-windows.dims)


def largest_elements(x: Tensor, windows: Windows) -> Tensor:
    """(..., *output_size): the largest finite |x| of each window."""
    found = elements(x.double(), windows)
    return found.masked_fill(~found.isfinite(), 0.0).abs().amax(-1)


def largest_shares(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """x's shape: of every window over an element the largest |g w (1 + |t - sum_j w_j t_j|)|, added up.

    Windows with an infinite maximum give nothing.
    """
    found = elements(x.double(), windows)
    real = found != float("-inf")
    logits = torch.where(real, found * over_channels(beta.double(), windows.dims).unsqueeze(-1), float("-inf"))
    logits = (logits - logits.amax(-1, keepdim=True)).clamp(min=-1000.0)
    weights = torch.where(real, logits.exp(), 0.0)
    weights = weights / weights.sum(-1, keepdim=True)
    centred = 1 + (logits - (weights * logits).sum(-1, keepdim=True)).abs()
    share = (grad.double().abs().unsqueeze(-1) * weights * centred).amax(-1, keepdim=True)
    share = share.masked_fill(found.amax(-1, keepdim=True).isinf(), 0.0).expand_as(found)
    zeros = torch.zeros(x.shape, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(elements(zeros, windows), zeros, share)[0]
