"""`poolswap::soft_pool` in standard operators with a branch: the common form where it is exact, the safe one elsewhere.

`avg(exp(beta x) x) / avg(exp(beta x))` takes a fraction of the work of `soft_pool_decomposition`, for no window needs a
shift of its own, and is as exact while no exponential and no sum of them leaves the range of float32. Its divisors tell
whether they did: one condition on all of them decides, each time that the file runs. So the common form is computed
outside of the branch, which only takes it or makes another: runtimes lay out and fuse no nodes across its border.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.ops.decompose import soft_pool_decomposition
from poolswap.ops.windows import Sizes

# Sums of exponentials: below the first neither they nor their products with x overflow. Above the second the largest
# element of the window is far from the denormal numbers, and whatever elements underflow are nothing beside it.
_LARGEST_SUM, _SMALLEST_SUM = 1e36, 1e-30
# Smaller betas let the products with x overflow too early, larger ones let them underflow.
_BETAS = (1e-6, 1e3)
# Of padding; its exponential is zero.
_NOTHING = -104.0
_AVG_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def branching_decomposition(
    x: Tensor, beta: float, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, output_size: Sizes
) -> Tensor:
    """`soft_pool_decomposition`, by two average poolings where the exponentials of every window stay in range.

    Where the sizes of x are not known, windows are dilated, there is but one, or beta is out of proportion, there is no
    branch.
    """
    windows = (kernel_size, stride, padding, dilation, output_size)

    def safe(x: Tensor, y: Tensor) -> tuple[Tensor]:
        return (soft_pool_decomposition(x, beta, *windows),)

    def common(x: Tensor, y: Tensor) -> tuple[Tensor]:
        return (y.clone(),)  # neither side may return what it was given

    sizes = x.shape[2:]
    known = all(isinstance(n, int) for n in (*kernel_size, *padding, *output_size, *sizes))
    ordinary = known and len(sizes) == len(kernel_size) and set(dilation) == {1} and prod(output_size) > 1
    if not (ordinary and _BETAS[0] <= abs(beta) <= _BETAS[1]):
        return soft_pool_decomposition(x, beta, *windows)
    v, edge = _padded(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, beta, *windows)
    e = (v if beta == 1.0 else v * beta).exp()
    pool = _AVG_POOL[len(edge)]
    divisor = pool(e, kernel_size, stride, edge)
    y = (pool(e * v, kernel_size, stride, edge) / divisor).to(x.dtype)
    everything = tuple(range(x.dim()))
    largest = _LARGEST_SUM * min(abs(beta), 1.0) / prod(kernel_size)
    exact = (divisor.amax(everything) < largest) & (divisor.amin(everything) > _SMALLEST_SUM)
    # torch.cond would hand both sides to dynamo; they are traced already.
    (y,) = torch.ops.higher_order.cond(exact, common, safe, (x, y))
    return y  # type: ignore[no-any-return]


def _padded(
    x: Tensor, beta: float, kernel: Sizes, stride: Sizes, before: Sizes, dilation: Sizes, out: Sizes
) -> tuple[Tensor, list[int]]:
    """x, and how much padding average pooling is to add: none, where that could not give as many windows as wanted."""
    axes = list(zip(x.shape[2:], kernel, stride, before, out, strict=True))
    if all(b <= k // 2 and (n + 2 * b - k) // s + 1 == o for n, k, s, b, o in axes):
        return x, list(before)
    amounts = [amount for n, k, s, b, o in reversed(axes) for amount in (b, max((o - 1) * s + k - b - n, 0))]
    return F.pad(x, amounts, value=_NOTHING / beta), [0] * len(axes)
