"""What is looked at before a kernel gets addresses: it cannot look itself, and reads whatever lies there.

Windows of a layer are sound by their type, but the operators are public and take any five lists. A storage can be
smaller than the tensors over it: sharded training frees it (`untyped_storage().resize_(0)`) between two uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from poolswap.ops.layout import layout_of
from poolswap.ops.windows import Windows

_LARGEST = 2**31 - 1  # torch's own pools count in 32 bits


def check_memory(tensor: Tensor) -> None:
    """Raises ValueError unless the tensor's storage holds all of its elements."""
    held = tensor.untyped_storage().nbytes()
    dense = tensor.is_contiguous() or layout_of(tensor) is not torch.contiguous_format
    needed = tensor.nbytes if dense else _reach(tensor) * tensor.itemsize
    if needed and tensor.storage_offset() * tensor.itemsize + needed > held:
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} lies outside of its storage of {held} bytes")


def check_call(x: Tensor, beta: Tensor, windows: Windows, grad: Tensor | None = None) -> None:
    """Raises TypeError or ValueError for a call that no pooling layer makes, or a gradient that is not its output's."""
    if not x.is_floating_point():
        raise TypeError(f"soft_pool takes floating point, not {x.dtype}")
    check_beta(beta, x.shape, windows)
    shape = check_windows(x.shape, windows)
    check_memory(x)
    if grad is None:
        return
    if grad.shape != shape or grad.dtype != x.dtype or grad.device != x.device:
        expected, given = (f"{tuple(size)} of {t.dtype} on {t.device}" for size, t in ((shape, x), (grad.shape, grad)))
        raise ValueError(f"the gradient of an output {expected} cannot be {given}")
    check_memory(grad)


def check_beta(beta: Tensor, shape: Sequence[int], windows: Windows) -> None:
    """Raises ValueError unless beta has one element, or one a channel of an input of this shape."""
    if beta.dim() == 0 or beta.numel() == 1:
        return
    dims = len(windows.kernel_size)  # torch 2.7 compiles no property of a NamedTuple
    channels = shape[-dims - 1] if len(shape) > dims else None
    if beta.dim() != 1 or beta.shape[0] != channels:
        raise ValueError(f"beta has one element or one for each of {channels} channels, not shape {tuple(beta.shape)}")


@lru_cache(maxsize=1024)
def check_windows(shape: tuple[int, ...], windows: Windows) -> tuple[int, ...]:
    """The output's shape for an input's. Raises ValueError for windows that no layer has on such an input.

    Kernel, stride and dilation are positive, padding is at most half a window, every window that fits is there, and the
    last one starts in the input or in its leading padding.
    """
    dims = windows.dims
    if not 1 <= dims <= 3 or any(len(sizes) != dims for sizes in windows) or len(shape) <= dims:
        raise ValueError(f"windows have 1 to 3 dimensions, fewer than the input {tuple(shape)}: {windows}")
    for n, k, s, p, d, o in zip(shape[-dims:], *windows, strict=True):
        extent = (k - 1) * d + 1
        if min(k, s, d) < 1 or max(k, s, d, extent) > _LARGEST or not 0 <= p <= extent // 2:
            raise ValueError(f"no pooling layer has such windows: {windows}")
        if n < 1 or not max((n + p - extent) // s + 1, 1) <= o <= (n + p - 1) // s + 1:
            raise ValueError(f"no pooling layer makes such an output of an input {tuple(shape)}: {windows}")
    return (*shape[: len(shape) - dims], *windows.output_size)


def _reach(tensor: Tensor) -> int:
    """Elements of the storage from the tensor's first to its last; none of an empty one."""
    if tensor.numel() == 0:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
