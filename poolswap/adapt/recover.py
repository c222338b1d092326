"""Bringing a swapped model back: recalibrate, then train, with its accuracy before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from poolswap.adapt.beside import recalibrate_beside_stock
from poolswap.adapt.data import Data
from poolswap.adapt.evaluate import Evaluation, evaluate
from poolswap.adapt.finetune import FinetuneResult, finetune
from poolswap.adapt.loaders import make_loader
from poolswap.adapt.parts import make_optimizer, make_schedule
from poolswap.adapt.recipe import Recipe
from poolswap.adapt.state import EpochRow
from poolswap.errors import InputError, MissingExtraError
from poolswap.inputs import Example
from poolswap.models.load import ModelSpec
from poolswap.surgery.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What to do with a model after its swap: new BatchNorm statistics, training by the recipe, or both.

    Its functions are called after each evaluation (with what was done), each epoch, and each update.
    """

    data: Data
    recalibrate: bool = False
    train: bool = False
    recipe: Recipe = field(default_factory=Recipe)
    device: str | None = None
    on_evaluation: Callable[[str, Evaluation], None] = lambda done, found: None
    on_epoch: Callable[[EpochRow], None] = lambda row: None
    advance: Callable[[int], None] = lambda updates: None


class Recovered(BaseModel):
    """Accuracy after the swap, after recalibration, and the training; None for a step that was left out.

    `stock` is the model with its own pools, recalibrated alike: recalibration may help that one too.
    """

    model_config = ConfigDict(frozen=True)

    swapped: Evaluation
    recalibrated: Evaluation | None = None
    stock: Evaluation | None = None
    layers: int = 0
    training: FinetuneResult | None = None
    recipe: dict[str, Any]


def recover(
    model: nn.Module,
    recovery: Recovery,
    folder: Path | str,
    *,
    spec: ModelSpec,
    plan: Plan,
    example: Example | None = None,
    force: bool = False,
) -> Recovered:
    """Recalibrate and train the swapped model, in place; it ends on the CPU in eval mode. `folder` is the training's.

    Raises InputError for data or a recipe that does not fit, and where there is no BatchNorm to recalibrate.
    """
    data, recipe = recovery.data, recovery.recipe
    reading: dict[str, Any] = {"workers": recipe.workers, "on_bad_image": recipe.on_bad_image}
    recalibrated, stock, layers, training = None, None, 0, None
    if recovery.recalibrate:
        new = recalibrate_beside_stock(
            model,
            data,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            shift=None,
            device=recovery.device,
            **reading,
        )
        if not new.layers:
            raise InputError(f"{spec.reference} has no BatchNorm to recalibrate", "leave out recalibrate=True")
        swapped, recalibrated, stock, layers = new.before, new.after, new.stock_after, new.layers
        recovery.on_evaluation("after the swap", swapped)
        recovery.on_evaluation(f"after recalibrating {layers} BatchNorm layers", recalibrated)
        if stock is not None:
            recovery.on_evaluation("of the stock model, recalibrated alike", stock)
    else:
        val = make_loader(data, "val", recipe.batch_size, **reading)
        swapped = evaluate(model, val, shift=None, device=recovery.device)
        recovery.on_evaluation("after the swap", swapped)
    if recovery.train:
        training = finetune(
            model,
            data,
            recipe,
            folder,
            spec=spec,
            plan=plan,
            example=example,
            resume=False,
            force=force,
            device="cpu" if recovery.device == "cpu" else None,
            on_epoch=recovery.on_epoch,
            advance=recovery.advance,
        )
    model.cpu().eval()
    top1 = training.rows[-1].top1 if training else (recalibrated or swapped).top1
    said = {**recipe.model_dump(mode="json"), "data": data.name, "recalibrated": recovery.recalibrate, "top1": top1}
    return Recovered(
        swapped=swapped, recalibrated=recalibrated, stock=stock, layers=layers, training=training, recipe=said
    )


def check_recipe(recipe: Recipe) -> None:
    """Raise what `finetune` would for want of a package or a name that timm lacks, before anything is loaded."""
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate, which trains,", "train")
    if recipe.tracker and find_spec(recipe.tracker) is None:
        raise InputError(f"the tracker {recipe.tracker} is not installed", f"pip install {recipe.tracker}")
    optimizer = make_optimizer(nn.Linear(1, 1), recipe.model_copy(update={"layer_decay": None}))
    make_schedule(optimizer, recipe, updates_per_epoch=1)
