"""One training pass of any model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from poolswap.inputs import Inputs

Direction = Literal["forward", "training"]


def forward_backward(model: nn.Module, inputs: Inputs) -> None:
    """Forward in the model's mode, and backward of its outputs' mean square; the gradients stay until the next one.

    `inputs` are (args, kwargs) as `poolswap.inputs.fitted` gives them. Of outputs without a gradient nothing is taken.
    """
    model.zero_grad(set_to_none=True)
    args, kwargs = inputs
    outputs = [leaf for leaf in tree_leaves(model(*args, **kwargs)) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if outputs:
        torch.stack([y.float().square().mean() for y in outputs]).sum().backward()
