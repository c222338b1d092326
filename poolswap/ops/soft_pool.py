"""`poolswap::soft_pool` and its backward as torch.library operators: schema, fake, autograd, vmap.

The operators see windows only as `poolswap.ops.windows.Windows`, so ceil_mode, SAME padding and global pooling are all
the same to them; `poolswap.geometry` does that arithmetic once. Which code runs is decided in `poolswap.ops.backend`.
A gradient needs x alone, so nothing else is saved: whatever follows may write over the output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from poolswap.ops import reference, transforms
from poolswap.ops.backend import implementation, requested, use_backend
from poolswap.ops.checks import check_beta, check_call, check_memory, check_windows
from poolswap.ops.decompose import soft_pool_decomposition
from poolswap.ops.layout import empty_output
from poolswap.ops.tracing import is_traced
from poolswap.ops.windows import SCHEMA, Sizes, Windows

_library = torch.library.Library("poolswap", "DEF")
_library.define(f"soft_pool(Tensor x, Tensor beta, {SCHEMA}) -> Tensor")
_library.define(f"soft_pool_fixed(Tensor x, float beta, {SCHEMA}) -> Tensor")
_library.define(f"soft_pool_backward(Tensor grad, Tensor x, Tensor beta, {SCHEMA}) -> Tensor")
_library.define(f"soft_pool_gradients(Tensor grad, Tensor x, Tensor beta, {SCHEMA}) -> (Tensor, Tensor)")


def soft_pool(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """SoftPool of x (..., *spatial), at least one leading dimension -> (..., *output_size), in x's dtype and layout.

    `beta` has one element, or is (C,), one a channel, where C is the size of the last leading dimension.
    """
    if is_eager(x):
        check_windows(x.shape, windows)
        return eager_soft_pool(x, beta, windows)
    return observed_soft_pool(x, beta, windows)


def eager_soft_pool(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """`soft_pool` for a caller who knows that `is_eager(x)` and where the windows come from."""
    check_memory(x)
    if beta.dim():
        check_beta(beta, x.shape, windows)
    recorded = torch.is_grad_enabled()
    if type(beta) not in _PLAIN:
        return torch.ops.poolswap.soft_pool.default(x, beta, *windows)  # type: ignore[no-any-return]
    if recorded and (x.requires_grad or beta.requires_grad):
        return SoftPoolFunction.apply(x, beta, windows)  # type: ignore[no-any-return]
    return implementation(x).forward(x, beta, windows)


def observed_soft_pool(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """`soft_pool` for a caller who knows that not `is_eager(x)`: what each onlooker can make something of."""
    if not is_traced():  # there every size is a tensor
        check_beta(beta, x.shape, windows)
    if not torch.compiler.is_compiling():
        if forward_ad._current_level >= 0:  # the formula has forward derivatives and batching rules of any order
            return reference.forward(x, beta, windows)
        if is_traced():  # a TorchScript graph, or the older ONNX exporter's: standard operators for any size
            return soft_pool_decomposition(x, beta, *windows)
        if torch._C._are_functorch_transforms_active():
            return transforms.soft_pool(x, beta, windows)
    return torch.ops.poolswap.soft_pool.default(x, beta, *windows)  # type: ignore[no-any-return]


_PLAIN = (Tensor, nn.Parameter)


def is_eager(x: Tensor) -> bool:
    """Whether an operator on x would go straight to its implementation, past autograd at most.

    Then it may be called without the dispatcher, whose registrations in Python cost more than a small pool. A compiler,
    a tracer, a dispatch mode, a functorch transform, forward-mode AD or a subclass of Tensor wants to see the operator;
    meta tensors, lazy negatives and lazy zeros are the dispatcher's to resolve.
    """
    return (
        not torch.compiler.is_compiling()
        and type(x) in _PLAIN
        and not (x.is_neg() or x.is_meta or x._is_zerotensor())
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


class SoftPoolFunction(torch.autograd.Function):
    """The operator with its gradients, without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
        ctx.run = implementation(x)
        ctx.save_for_backward(x, beta)
        ctx.windows = windows
        return ctx.run.forward(x, beta, windows)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, beta = ctx.saved_tensors
        learns = ctx.needs_input_grad[1]
        if not torch.is_grad_enabled() and is_eager(grad) and type(x) in _PLAIN:
            check_memory(x)
            check_memory(grad)  # the engine has seen to its shape, dtype and device
            if learns:
                return *ctx.run.gradients(grad, x, beta, ctx.windows), None
            return ctx.run.backward(grad, x, beta, ctx.windows), None, None
        return *_gradients_of(grad, x, beta, ctx.windows, learns), None


def _gradients_of(
    grad: Tensor, x: Tensor, beta: Tensor, windows: Windows, learns: bool
) -> tuple[Tensor, Tensor | None]:
    """The gradients by the operators."""
    if learns:
        return torch.ops.poolswap.soft_pool_gradients.default(grad, x, beta, *windows)  # type: ignore[no-any-return]
    return torch.ops.poolswap.soft_pool_backward.default(grad, x, beta, *windows), None


@torch.library.impl(_library, "soft_pool", "CompositeExplicitAutograd")
def _forward(x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    call = Windows(*map(tuple, windows))
    check_call(x, beta, call)
    return implementation(x).forward(x, beta, call)


# For exporters: where beta is known, standard operators alone know best what to make of it.
_library.impl("soft_pool_fixed", soft_pool_decomposition, "CompositeImplicitAutograd")


@torch.library.impl(_library, "soft_pool_backward", "CompositeExplicitAutograd")
def _backward(grad: Tensor, x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    call = Windows(*map(tuple, windows))
    check_call(x, beta, call, grad)
    return implementation(x).backward(grad, x, beta, call)


@torch.library.impl(_library, "soft_pool_gradients", "CompositeExplicitAutograd")
def _gradients(grad: Tensor, x: Tensor, beta: Tensor, *windows: Sizes) -> tuple[Tensor, Tensor]:
    call = Windows(*map(tuple, windows))
    check_call(x, beta, call, grad)
    return implementation(x).gradients(grad, x, beta, call)


@torch.library.register_fake("poolswap::soft_pool", lib=_library)
def _fake_forward(x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    _check_all_meta(x, beta)
    return empty_output(x, Windows(*windows).output_size)


@torch.library.register_fake("poolswap::soft_pool_backward", lib=_library)
def _fake_backward(grad: Tensor, x: Tensor, beta: Tensor, *windows: Sizes) -> Tensor:
    _check_all_meta(x, beta, grad)
    return empty_output(x, x.shape[x.dim() - Windows(*windows).dims :])


@torch.library.register_fake("poolswap::soft_pool_gradients", lib=_library)
def _fake_gradients(grad: Tensor, x: Tensor, beta: Tensor, *windows: Sizes) -> tuple[Tensor, Tensor]:
    return _fake_backward(grad, x, beta, *windows), torch.empty_like(beta, memory_format=torch.contiguous_format)


def _check_all_meta(x: Tensor, *others: Tensor) -> None:
    """One meta tensor brings a call here, where real memory would be given back without values."""
    if not x.is_meta and any(tensor.is_meta for tensor in others):
        raise ValueError(f"soft_pool of a tensor on {x.device} takes no tensor on meta")


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, beta, *ctx.windows = inputs
    ctx.save_for_backward(x, beta)
    ctx.backend = requested()


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, beta = ctx.saved_tensors
    with use_backend(ctx.backend):  # a GPU's gradients run in threads of their own
        gradients = _gradients_of(grad, x, beta, ctx.windows, ctx.needs_input_grad[1])
    return *gradients, *(None for _ in ctx.windows)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, x, beta, *ctx.windows = inputs
    ctx.save_for_backward(grad, x, beta)


def _second_order(formula: Any) -> Any:
    """Gradient of a backward operator: its reference formula, differentiated by autograd."""

    def gradient(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            value = formula(*inputs, Windows(*ctx.windows))
            by_inputs = torch.autograd.grad(value, inputs, grad, materialize_grads=True)
        return *by_inputs, *(None for _ in ctx.windows)

    return gradient


def _batch(operator: Any, tensors: int) -> Any:
    """vmap over an operator whose first `tensors` arguments (beta last) may be batched: one more leading dimension."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
        if in_dims[tensors - 1] is not None:
            raise NotImplementedError("poolswap::soft_pool under vmap takes one beta for the whole batch")
        lead = transforms.lead(info.batch_size, args[: tensors - 1], in_dims)
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
    "poolswap::soft_pool_gradients",
    _second_order(reference.gradients),
    setup_context=_save_backward,
    lib=_library,
)
torch.library.register_vmap("poolswap::soft_pool", _batch(torch.ops.poolswap.soft_pool, 2), lib=_library)
torch.library.register_vmap(
    "poolswap::soft_pool_backward", _batch(torch.ops.poolswap.soft_pool_backward, 3), lib=_library
)
