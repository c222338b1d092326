"""Which stock window pooling kernels a model really runs, seen where they are dispatched."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_NAMES = ("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
_WITH_INDICES = ("max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "mkldnn_max_pool3d")
KERNELS = {getattr(torch.ops.aten, name) for name in (*_NAMES, *_WITH_INDICES)}


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.windows: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in KERNELS:
            pooled = output[0] if isinstance(output, tuple) else output
            whole = pooled.shape[2:].numel() == 1 and list(args[1]) == list(args[0].shape[2:])
            if not (whole and "avg" in func.overloadpacket.__name__):
                self.windows.append(func.overloadpacket.__name__)
        return output


def window_kernels(model: nn.Module, *args: Any) -> list[str]:
    """Names of the stock max and average pooling kernels with a local window that model(*args) runs."""
    # What torch 2.7 meets under a mode it never compiles again.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), _Count() as count:
        model(*args)
    return count.windows
