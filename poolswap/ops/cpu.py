"""SoftPool on the CPU: the C++ kernel of `csrc`, loaded by ctypes.

The library knows nothing of torch, so one build serves every torch version. It is loaded after torch, and so shares
the OpenMP runtime, and with it the threads, that torch has loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import chain
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from poolswap.ops import reference
from poolswap.ops.checks import check_memory
from poolswap.ops.layout import layout_of
from poolswap.ops.windows import Windows

_LIBRARY = "_soft_pool_cpu.so"
_INTERFACE = 2  # `kInterface` of csrc/kernel.h: an editable install may find a library that an earlier version built
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_WORTH_SHARING = 2**15  # elements: what a thread pools in about the time that it takes to wake another
_MOST_VOID = 64  # `kMostVoid` of csrc/validate.h: by how much a window may be longer than the input
_ABSENT = (1, 1, 1, 1, 0, 1)  # in, out, kernel, stride, padding, dilation of an axis that is not there


class Description(NamedTuple):
    """What every call on tensors of one shape, type and layout shares."""

    spec: ctypes.Array[ctypes.c_int64]  # `Spec` of csrc/kernel.h
    address: int
    layout: torch.memory_format  # in which the kernel sees its tensors
    result: torch.memory_format  # that the caller expects
    output: Tensor  # without memory, for `empty_like`, the fastest way to one
    shared: bool  # whether it is worth waking other threads


def unavailable() -> str | None:
    """Why the kernel cannot run here, or None."""
    try:
        _library()
    except OSError as error:
        return str(error)
    return None


def instruction_set() -> str:
    """The variant of the kernel that this processor runs: baseline, x86_64_v3 or x86_64_v4."""
    name: bytes = _library().poolswap_isa()
    return name.decode()


def forward(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """SoftPool of x (..., *spatial) -> (..., *output_size), in x's layout; see `poolswap.ops.soft_pool.soft_pool`."""
    dense = x.is_contiguous()
    call = _describe(x.dtype, x.shape, torch.contiguous_format if dense else layout_of(x), windows, beta.numel())
    if call is None:
        return reference.forward(x, beta, windows)
    y, betas = torch.empty_like(call.output), _doubles(beta)
    if not dense:
        x = x.contiguous(memory_format=call.layout)
    threads = _Threads.most() if call.shared else 1
    _check(_library().poolswap_forward(call.address, betas.data_ptr(), x.data_ptr(), y.data_ptr(), threads))
    return y if call.layout is call.result else y.contiguous(memory_format=call.result)


def backward(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """Gradient with respect to x, in x's layout. Everything is computed anew from x."""
    dx = _backward(grad, x, beta, windows, None)
    return reference.backward(grad, x, beta, windows) if dx is None else dx


def gradients(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """(`backward`, gradient with respect to beta), in one pass."""
    grad_beta = torch.empty(beta.numel(), dtype=torch.float64)
    dx = _backward(grad, x, beta, windows, grad_beta.data_ptr())
    if dx is None:
        return reference.gradients(grad, x, beta, windows)
    return dx, grad_beta.reshape(beta.shape).to(beta)


def _backward(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows, grad_beta: int | None) -> Tensor | None:
    dense = x.is_contiguous()
    call = _describe(x.dtype, x.shape, torch.contiguous_format if dense else layout_of(x), windows, beta.numel())
    if call is None:
        return None
    if not (dense and grad.is_contiguous()):
        x, grad = (tensor.contiguous(memory_format=call.layout) for tensor in (x, grad))
    dx, betas = torch.empty_like(x), _doubles(beta)
    pointers = betas.data_ptr(), grad.data_ptr(), x.data_ptr(), dx.data_ptr(), grad_beta
    threads = _Threads.most() if call.shared else 1
    _check(_library().poolswap_backward(call.address, *pointers, threads))
    return dx if call.layout is call.result else dx.contiguous(memory_format=call.result)


def _doubles(beta: Tensor) -> Tensor:
    """beta as the kernel takes it: dense, in float64, on the CPU."""
    if beta.dim():
        check_memory(beta)
    if beta.dtype is torch.float64 and beta.is_cpu and beta.is_contiguous() and not beta.is_neg():
        return beta
    return beta.detach().to("cpu", torch.float64).contiguous().resolve_neg()


@lru_cache(maxsize=1024)
def _describe(
    dtype: torch.dtype, shape: tuple[int, ...], result: torch.memory_format, windows: Windows, betas: int
) -> Description | None:
    """None where the kernel does not serve: types that it does not know, windows that hold next to nothing."""
    kernel_size, stride, padding, dilation, output_size = windows
    dims = windows.dims
    leading, spatial = shape[: len(shape) - dims], shape[len(shape) - dims :]
    if dtype not in _DTYPES or any(k > n + _MOST_VOID for k, n in zip(kernel_size, spatial, strict=True)):
        return None
    axes = list(zip(spatial, output_size, kernel_size, stride, padding, dilation, strict=True))
    channels_last = result is not torch.contiguous_format
    # Dimensions between the channels and the pooled ones are axes with windows of one element.
    between = [(n, n, 1, 1, 0, 1) for n in leading[2:]]
    # The betas of channels that are not the second dimension are told apart by their planes alone.
    if channels_last and len(leading) >= 2 and len(between) + dims <= 3 and not (between and betas > 1):
        layout, planes, channels, axes = result, shape[0], shape[1], between + axes
    else:
        layout, planes, channels = torch.contiguous_format, prod(leading), 1
    axes = [_ABSENT] * (3 - len(axes)) + axes
    numbers = (_DTYPES[dtype], layout is not torch.contiguous_format, planes, channels, betas, *chain(*axes))
    spec = (ctypes.c_int64 * len(numbers))(*numbers)
    with torch.inference_mode(False):
        output = torch.empty((*leading, *output_size), dtype=dtype, device="cpu", memory_format=layout)
        output.untyped_storage().resize_(0)
    shared = max(prod(shape), output.numel()) >= _WORTH_SHARING
    return Description(spec, ctypes.addressof(spec), layout, result, output, shared)


class _Threads:
    """How many threads a call may take: torch's own number. In a forked child one: OpenMP's others stayed behind."""

    most: Callable[[], int] = staticmethod(torch.get_num_threads)

    @classmethod
    def be_alone(cls) -> None:
        """From now on one."""
        cls.most = staticmethod(lambda: 1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_Threads.be_alone)


def _check(status: int) -> None:
    if status:
        error, what = _ERRORS[status]
        raise error(f"the SoftPool kernel {what}")


# By `Status` of csrc/validate.h. All but the first are mistakes of a caller who went past `poolswap.functional`.
_ERRORS: dict[int, tuple[type[Exception], str]] = {
    1: (MemoryError, "found no memory for its rows"),
    2: (TypeError, "does not know this dtype or layout"),
    3: (ValueError, "was given a tensor without memory"),
    4: (ValueError, "was given an empty, negative or absurd size"),
    5: (ValueError, "was given windows that no pooling layer has"),
    6: (ValueError, "was given an output size that its windows do not make"),
    7: (ValueError, "was given neither one beta nor one for each channel"),
}


@cache
def _library() -> ctypes.CDLL:
    """The loaded library. Raises OSError, which says why there is none."""
    folders = sys.modules[__package__].__path__  # an editable install keeps what it built beside the sources
    path = next((path for folder in folders if (path := Path(folder) / _LIBRARY).exists()), None)
    if path is None:
        raise OSError("the C++ kernel was not built: there was no compiler when poolswap was installed")
    library = ctypes.CDLL(str(path))
    if getattr(library, "poolswap_interface", int)() != _INTERFACE:
        raise OSError("the C++ kernel is of another version of poolswap: install poolswap again")
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.poolswap_isa.restype = ctypes.c_char_p
    library.poolswap_forward.argtypes = [pointer, pointer, pointer, pointer, number]
    library.poolswap_backward.argtypes = [pointer, pointer, pointer, pointer, pointer, pointer, number]
    return library
