"""Recalibration beside the stock model's: it helps that one too, so before and after alone say nothing of pooling."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from poolswap.adapt.data import Data
from poolswap.adapt.evaluate import Evaluation, evaluate
from poolswap.adapt.loaders import make_loader
from poolswap.adapt.recalibrate import recalibrate
from poolswap.surgery.mark import replaced_by
from poolswap.surgery.swap import restore


class Recalibration(BaseModel):
    """Validation results before and after new statistics of `layers` BatchNorms: the model's, and its stock twin's.

    The twin has the same weights and its own pools; None where nothing was replaced.
    """

    model_config = ConfigDict(frozen=True)

    layers: int
    before: Evaluation
    after: Evaluation
    stock_before: Evaluation | None = None
    stock_after: Evaluation | None = None


def recalibrate_beside_stock(
    model: nn.Module,
    data: Data,
    *,
    batches: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    shift: int | None = 1,
    device: torch.device | str | None = None,
    advance: Callable[[int], None] = lambda steps: None,
    **reading: Any,
) -> Recalibration:
    """Recalibrate the model in place on the data's plain training images, and a twin of it with stock pools alike.

    `reading` are further arguments of `make_loader`. Where there is no BatchNorm, the answer's `layers` is 0 and the
    two evaluations are equal. Raises InputError for data that does not fit.
    """
    twin = deepcopy(model) if any(replaced_by(module) is not None for module in model.modules()) else None
    val = make_loader(data, "val", batch_size, **reading)

    def judge(net: nn.Module) -> Evaluation:
        return evaluate(net, val, shift=shift, device=device, advance=advance)

    def renew(net: nn.Module) -> int:
        plain = make_loader(data, "plain", batch_size, seed=seed, **reading)
        return recalibrate(net, plain, batches=batches, advance=advance)

    before, layers = judge(model), renew(model)
    if not layers:
        return Recalibration(layers=0, before=before, after=before)
    found = Recalibration(layers=layers, before=before, after=judge(model))
    if twin is None:
        return found
    restore(twin)
    stock = judge(twin)
    renew(twin)
    return found.model_copy(update={"stock_before": stock, "stock_after": judge(twin)})
