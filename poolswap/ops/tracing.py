"""Whether TorchScript looks on."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether torch.jit.trace or the older ONNX exporter records this call.

    Sizes are tensors then, and whatever depends on their values is fixed for every other size too.
    """
    return not torch.compiler.is_compiling() and bool(torch._C._is_tracing())
