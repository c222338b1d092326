"""SoftPool on CUDA and ROCm devices through Triton, which comes with torch's Linux GPU builds.

Importing this module needs neither Triton nor a device; `poolswap.ops.triton.kernels` needs Triton.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from poolswap.ops import reference
from poolswap.ops.windows import Windows


def unavailable() -> str | None:
    """Why the kernels cannot run on this machine, or None."""
    if find_spec("triton") is None:
        return "Triton is not installed (it comes with torch's Linux GPU builds)"
    if not torch.cuda.is_available():
        return "torch finds no CUDA or ROCm device"
    if not hasattr(import_module("triton"), "constexpr_function"):
        return "Triton is older than the kernels, which need its constexpr_function: a newer torch brings it"
    return None


def forward(x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """SoftPool as `poolswap.ops.reference.forward` defines it; x (..., *spatial) -> (..., *output_size)."""
    if beta.numel() != 1:
        return reference.forward(x, beta, windows)
    from poolswap.ops.triton import launch

    return launch.forward(x, beta, windows)


def backward(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """Gradient with respect to x, as `poolswap.ops.reference.backward` defines it."""
    if beta.numel() != 1:
        return reference.backward(grad, x, beta, windows)
    from poolswap.ops.triton import launch

    return launch.backward(grad, x, beta, windows)


def gradients(grad: Tensor, x: Tensor, beta: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """(`backward`, gradient with respect to beta by the reference)."""
    return backward(grad, x, beta, windows), reference.backward_beta(grad, x, beta, windows)
