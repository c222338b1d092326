"""The layout that goes in is the layout that comes out: the one rule, for every backend and for the fake operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def layout_of(x: Tensor) -> torch.memory_format:
    """channels_last where x is laid out so and not contiguous as well; contiguous otherwise."""
    if torch._C._functorch.is_batchedtensor(x) or x.is_contiguous():  # vmap does not tell a map's other layouts
        return torch.contiguous_format
    layout = CHANNELS_LAST.get(x.dim(), torch.contiguous_format)
    return layout if x.is_contiguous(memory_format=layout) else torch.contiguous_format


def empty_output(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Uninitialised output of x's type, device and layout, with these spatial sizes."""
    shape = (*x.shape[: x.dim() - len(output_size)], *output_size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout_of(x))
