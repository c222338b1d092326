"""SoftPool under torch.func: grad, jacrev and vmap of one another, by the kernels as far as they reach.

torch.library's own autograd knows no functorch, and torch.autograd.Function with `setup_context` is too slow for the
eager path; so this one serves transforms alone. Gradients of gradients are those of the reference formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from poolswap.ops import reference
from poolswap.ops.backend import implementation
from poolswap.ops.checks import check_call
from poolswap.ops.windows import Windows


def soft_pool(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """`poolswap.ops.soft_pool.soft_pool` for tensors that a transform has wrapped; vmap may map beta as well."""
    return _SoftPool.apply(x, beta, windows)  # type: ignore[no-any-return]


def lead(size: int, tensors: Sequence[Tensor], in_dims: Sequence[int | None]) -> list[Tensor]:
    """The tensors of a vmap of this size with the mapped dimension first, expanded where there is none."""
    return [
        tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=False)
    ]


class _SoftPool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
        check_call(x, beta, windows)
        return implementation(x).forward(x, beta, windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, beta, ctx.windows = inputs
        ctx.save_for_backward(x, beta)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, beta = ctx.saved_tensors
        grad_x = _Backward.apply(grad, x, beta, ctx.windows) if ctx.needs_input_grad[0] else None
        grad_beta = reference.backward_beta(grad, x, beta, ctx.windows) if ctx.needs_input_grad[1] else None
        return grad_x, grad_beta, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, beta: Tensor, windows: Windows) -> tuple[Tensor, int]:
        return _vmap(_SoftPool.apply, reference.forward, info.batch_size, in_dims, (x, beta), windows)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
        check_call(x, beta, windows, grad)
        return implementation(x).backward(grad, x, beta, windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.windows = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pull = torch.func.vjp(lambda g, x, beta: reference.backward(g, x, beta, ctx.windows), *ctx.saved_tensors)[1]
        return *pull(grad), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], grad: Tensor, x: Tensor, beta: Tensor, windows: Windows
    ) -> tuple[Tensor, int]:
        return _vmap(_Backward.apply, reference.backward, info.batch_size, in_dims, (grad, x, beta), windows)


def _vmap(
    function: Any, formula: Any, size: int, in_dims: tuple[Any, ...], tensors: tuple[Tensor, ...], windows: Windows
) -> tuple[Tensor, int]:
    """One more leading dimension for the kernels; where beta, the last tensor, is mapped too, the formula."""
    *pooled, beta = tensors
    dims = in_dims[: len(tensors)]
    if dims[-1] is not None:
        return torch.vmap(lambda *tensors: formula(*tensors, windows), dims)(*tensors), 0
    return function(*lead(size, pooled, dims), beta, windows), 0
