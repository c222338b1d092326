"""New BatchNorm statistics for a model whose activations have moved: forward passes over unlabelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from poolswap.errors import InputError
from poolswap.inputs import evaluating, floating_tensor


def recalibrate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    batches: int | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> int:
    """Replace the running statistics by averages over the loader's batches; returns how many layers were changed.

    The images are best those of `make_loader(data, "plain")`: training images as they are evaluated. It helps a stock
    model too, so what it says of a swap is the difference to the stock model recalibrated alike; and it may raise the
    calibration error, for the weights were not trained with these statistics.

    Every batch weighs the same (momentum=None in torch's words). Only the normalisations run in train mode: dropout
    draws nothing, and no weight changes. The labels are not looked at. Layers that keep no statistics are left alone; a
    model without BatchNorm is left as it was, and the answer is 0. Raises InputError where the loader is empty.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return 0
    like = floating_tensor(model)
    assert like is not None
    kept = [(norm.momentum, {name: b.clone() for name, b in norm.named_buffers()}) for norm in norms]
    seen = 0
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        try:
            for images, *_ in islice(loader, batches):
                model(images.to(like.device, like.dtype))
                seen += 1
                advance(1)
        finally:
            for norm, (momentum, buffers) in zip(norms, kept, strict=True):
                norm.momentum = momentum
                if not seen:
                    norm.load_state_dict({**norm.state_dict(), **buffers})
    if not seen:
        raise InputError("there is no batch to recalibrate with", "give more images, or more batches")
    return len(norms)
