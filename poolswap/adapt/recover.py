"""Bringing a swapped model back: recalibrate, then train, with its accuracy before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from poolswap.adapt.data import Data
from poolswap.adapt.evaluate import Evaluation, evaluate
from poolswap.adapt.finetune import FinetuneResult, finetune
from poolswap.adapt.loaders import loaders
from poolswap.adapt.parts import make_optimizer, make_schedule
from poolswap.adapt.recalibrate import recalibrate
from poolswap.adapt.recipe import Recipe
from poolswap.adapt.state import EpochRow
from poolswap.errors import InputError, MissingExtraError
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
    """Accuracy after the swap, after recalibration, and the training; None for a step that was left out."""

    model_config = ConfigDict(frozen=True)

    swapped: Evaluation
    recalibrated: Evaluation | None = None
    layers: int = 0
    training: FinetuneResult | None = None
    recipe: dict[str, Any]


def recover(
    model: nn.Module, recovery: Recovery, folder: Path | str, *, spec: ModelSpec, plan: Plan, force: bool = False
) -> Recovered:
    """Recalibrate and train the swapped model, in place; it ends on the CPU in eval mode. `folder` is the training's.

    Raises InputError for data or a recipe that does not fit, and where there is no BatchNorm to recalibrate.
    """
    data, recipe = recovery.data, recovery.recipe
    images, val = loaders(data, recipe.batch_size, recipe.workers, recipe.seed, recipe.on_bad_image)

    def judge(done: str) -> Evaluation:
        found = evaluate(model, val, shift=None, device=recovery.device)
        recovery.on_evaluation(done, found)
        return found

    swapped, recalibrated, layers, training = judge("after the swap"), None, 0, None
    if recovery.recalibrate:
        layers = recalibrate(model, images)
        if not layers:
            raise InputError(f"{spec.reference} has no BatchNorm to recalibrate", "leave out recalibrate=True")
        recalibrated = judge(f"after recalibrating {layers} BatchNorm layers")
    if recovery.train:
        training = finetune(
            model,
            data,
            recipe,
            folder,
            spec=spec,
            plan=plan,
            resume=False,
            force=force,
            device="cpu" if recovery.device == "cpu" else None,
            on_epoch=recovery.on_epoch,
            advance=recovery.advance,
        )
    model.cpu().eval()
    top1 = training.rows[-1].top1 if training else (recalibrated or swapped).top1
    said = {**recipe.model_dump(mode="json"), "data": data.name, "recalibrated": recovery.recalibrate, "top1": top1}
    return Recovered(swapped=swapped, recalibrated=recalibrated, layers=layers, training=training, recipe=said)


def check_recipe(recipe: Recipe) -> None:
    """Raise what `finetune` would for want of a package or a name that timm lacks, before anything is loaded."""
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate, which trains,", "train")
    if recipe.tracker and find_spec(recipe.tracker) is None:
        raise InputError(f"the tracker {recipe.tracker} is not installed", f"pip install {recipe.tracker}")
    optimizer = make_optimizer(nn.Linear(1, 1), recipe.model_copy(update={"layer_decay": None}))
    make_schedule(optimizer, recipe, updates_per_epoch=1)
