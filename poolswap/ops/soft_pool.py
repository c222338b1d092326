"""`poolswap::soft_pool` and its backward as torch.library operators: schema, fake, autograd, vmap.

The operators see windows only as (kernel_size, stride, leading padding, dilation, output size), so ceil_mode, SAME
padding and global pooling are all the same to them; `poolswap.geometry` does that arithmetic once. Which code runs is
decided in `poolswap.ops.backend`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from poolswap.ops import reference
from poolswap.ops.backend import implementation
from poolswap.ops.layout import empty_output
from poolswap.ops.reference import Sizes

_WINDOWS = "SymInt[] kernel_size, SymInt[] stride, SymInt[] padding, SymInt[] dilation, SymInt[] output_size"

_library = torch.library.Library("poolswap", "DEF")
_library.define(f"soft_pool(Tensor x, Tensor beta, {_WINDOWS}) -> Tensor")
_library.define(f"soft_pool_backward(Tensor grad, Tensor x, Tensor y, Tensor beta, {_WINDOWS}) -> Tensor")
_library.define(f"soft_pool_backward_beta(Tensor grad, Tensor x, Tensor y, Tensor beta, {_WINDOWS}) -> Tensor")


def soft_pool(
    x: Tensor,
    beta: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    output_size: Sizes,
) -> Tensor:
    """SoftPool of x (..., *spatial), at least one leading dimension -> (..., *output_size), in x's dtype and layout.

    `beta` is a tensor of one element; `padding` is the leading padding of each dimension. Raises NotImplementedError
    for a dual tensor: there is no forward-mode derivative.
    """
    windows = (kernel_size, stride, padding, dilation, output_size)
    if is_eager(x):
        return eager_soft_pool(x, beta, windows)
    _refuse_forward_mode(x, beta)
    return torch.ops.poolswap.soft_pool.default(x, beta, *windows)  # type: ignore[no-any-return]


def eager_soft_pool(x: Tensor, beta: Tensor, windows: tuple[Sizes, ...]) -> Tensor:
    """`soft_pool` for a caller who knows that `is_eager(x)`."""
    recorded = torch.is_grad_enabled()
    if type(beta) not in _PLAIN or (recorded and beta.requires_grad):
        return torch.ops.poolswap.soft_pool.default(x, beta, *windows)  # type: ignore[no-any-return]
    if recorded and x.requires_grad:
        return SoftPoolFunction.apply(x, beta, windows)  # type: ignore[no-any-return]
    return _forward(x, beta, *windows)


def _refuse_forward_mode(*tensors: Tensor) -> None:
    """torch.library has no forward mode, and would leave the tangents out without a word."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError("soft_pool has no forward-mode derivative: use backward() or torch.autograd.grad")


_PLAIN = (Tensor, nn.Parameter)


def is_eager(x: Tensor) -> bool:
    """Whether an operator on x would go straight to its implementation, past autograd at most.

    Then it may be called without the dispatcher, whose registrations in Python cost more than a small pool. A compiler,
    a tracer, a dispatch mode, a functorch transform, forward-mode AD or a subclass of Tensor wants to see the operator;
    meta tensors and lazy negatives are the dispatcher's to resolve.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) in _PLAIN
        and not (x.is_neg() or x.is_meta)
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


class SoftPoolFunction(torch.autograd.Function):
    """The operator with a gradient for x, without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, windows: tuple[Sizes, ...]) -> Tensor:
        y = _forward(x, beta, *windows)
        ctx.save_for_backward(x, y, beta)
        ctx.windows = windows
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, beta = ctx.saved_tensors
        eager = not torch.is_grad_enabled() and is_eager(grad) and type(x) in _PLAIN
        backward = _backward if eager else torch.ops.poolswap.soft_pool_backward.default
        return backward(grad, x, y, beta, *ctx.windows), None, None


@torch.library.impl(_library, "soft_pool", "CompositeExplicitAutograd")
def _forward(x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    forward, _ = implementation(x.device.type)
    return forward(x, beta, *windows)


@torch.library.impl(_library, "soft_pool_backward", "CompositeExplicitAutograd")
def _backward(grad: Tensor, x: Tensor, y: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    _, backward = implementation(x.device.type)
    return backward(grad, x, y, beta, *windows)


@torch.library.impl(_library, "soft_pool_backward_beta", "CompositeExplicitAutograd")
def _backward_beta(grad: Tensor, x: Tensor, y: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    return reference.backward_beta(grad, x, y, beta, *windows)


@torch.library.register_fake("poolswap::soft_pool", lib=_library)
def _fake_forward(x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    return empty_output(x, windows[-1])


@torch.library.register_fake("poolswap::soft_pool_backward", lib=_library)
def _fake_backward(grad: Tensor, x: Tensor, y: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    return empty_output(x, x.shape[x.dim() - len(windows[-1]) :])


@torch.library.register_fake("poolswap::soft_pool_backward_beta", lib=_library)
def _fake_backward_beta(grad: Tensor, x: Tensor, y: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    return torch.empty_like(beta)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, beta, *ctx.windows = inputs
    ctx.save_for_backward(x, output, beta)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y, beta = ctx.saved_tensors
    ops = torch.ops.poolswap
    grad_x = ops.soft_pool_backward(grad, x, y, beta, *ctx.windows) if ctx.needs_input_grad[0] else None
    grad_beta = ops.soft_pool_backward_beta(grad, x, y, beta, *ctx.windows) if ctx.needs_input_grad[1] else None
    return grad_x, grad_beta, *(None for _ in ctx.windows)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, y, beta, *ctx.windows = inputs
    ctx.save_for_backward(grad, x, y, beta)


def _second_order(formula: Any) -> Any:
    """Gradient of a backward operator: its reference formula, differentiated by autograd."""

    def gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, x, y, beta = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() for t in (first, x, beta)]
            value = formula(inputs[0], inputs[1], y, inputs[2], *ctx.windows)
            by_first, by_x, by_beta = torch.autograd.grad(value, inputs, grad, materialize_grads=True)
        return by_first, by_x, None, by_beta, *(None for _ in ctx.windows)

    return gradient


def _batch(operator: Any, tensors: int) -> Any:
    """vmap over an operator whose first `tensors` arguments (beta last) may be batched: one more leading dimension."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        if in_dims[tensors - 1] is not None:
            raise NotImplementedError("soft_pool under vmap takes one beta for the whole batch")
        lead = [
            value.unsqueeze(0).expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)
            for value, dim in zip(args[: tensors - 1], in_dims, strict=False)
        ]
        return operator(*lead, *args[tensors - 1 :]), 0

    return rule


torch.library.register_autograd("poolswap::soft_pool", _gradient, setup_context=_save, lib=_library)
torch.library.register_autograd(
    "poolswap::soft_pool_backward",
    _second_order(reference.backward),
    setup_context=_save_backward,
    lib=_library,
)
torch.library.register_autograd(
    "poolswap::soft_pool_backward_beta",
    _second_order(reference.backward_beta),
    setup_context=_save_backward,
    lib=_library,
)
torch.library.register_vmap("poolswap::soft_pool", _batch(torch.ops.poolswap.soft_pool, 2), lib=_library)
torch.library.register_vmap(
    "poolswap::soft_pool_backward", _batch(torch.ops.poolswap.soft_pool_backward, 4), lib=_library
)
