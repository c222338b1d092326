"""What a recipe asks for, from the libraries that have it: optimiser, schedule, loss, mixup, average of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poolswap.adapt.recipe import Recipe
from poolswap.errors import InputError, first_line, nearest

_SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly")  # timm's, by a hint


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """timm's optimiser of that name, without weight decay on biases, norms and betas. Raises InputError."""
    momentum = {"momentum": recipe.momentum} if recipe.opt.lower() in ("sgd", "nesterov", "momentum", "rmsprop") else {}
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            model,
            opt=recipe.opt,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
            **momentum,
        )
    except (ValueError, AssertionError, TypeError) as error:
        known = recipe.opt in list_optimizers()
        reason = first_line(error) if known else "timm has no such optimiser"
        hint = nearest(recipe.opt, list_optimizers()) if not known else None
        raise InputError(f"opt={recipe.opt!r}: {reason}", hint or "for example opt='adamw' or opt='sgd'") from error
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int) -> Callable[[int], None]:
    """A function that sets the learning rate for an update, by its number."""
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.sched,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup,
            warmup_lr=recipe.lr / 100,
            min_lr=recipe.min_lr,
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )
        if schedule is None and recipe.sched != "none":  # newer versions of timm refuse what they do not have
            raise ValueError(recipe.sched)
    except (ValueError, AssertionError) as error:
        hint = nearest(recipe.sched, _SCHEDULES) or f"one of {', '.join(_SCHEDULES)}"
        reason = first_line(error) if recipe.sched in _SCHEDULES else "timm has no such schedule"
        raise InputError(f"sched={recipe.sched!r}: {reason}", hint) from error
    if schedule is None:
        return lambda update: None
    step: Callable[[int], None] = schedule.step_update
    return step


def make_loss(recipe: Recipe) -> Callable[[Tensor, Tensor], Tensor]:
    """The training loss: of class numbers, or of the mixed targets that mixup makes."""
    loss: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    if recipe.loss == "bce":
        loss = BinaryCrossEntropy(smoothing=0.0 if mixes(recipe) else recipe.smoothing)
    elif mixes(recipe):
        loss = SoftTargetCrossEntropy()
    return loss


def make_mixup(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Mixup and CutMix as timm has them; without either, the batch itself."""
    if not mixes(recipe):
        return lambda images, targets: (images, targets)
    mixup: Any = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=classes)

    def mix(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        even = len(images) // 2 * 2  # timm pairs images
        mixed: tuple[Tensor, Tensor] = mixup(images[:even], targets[:even])
        return mixed

    return mix


def mixes(recipe: Recipe) -> bool:
    """Whether batches are mixed."""
    return recipe.mixup > 0 or recipe.cutmix > 0


def freeze(model: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """Freeze the parameters that the globs name; returns the BatchNorms whose statistics must rest too.

    Raises InputError for a glob that matches nothing, and where nothing is left to train.
    """
    for pattern in patterns:
        named = [p for name, p in model.named_parameters() if fnmatchcase(name, pattern)]
        if not named:
            raise InputError(f"freeze={pattern!r} matches no parameter", "write for example freeze=['layer1.*']")
        for parameter in named:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("every parameter is frozen", "leave a part of the model free")
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.weight is not None]
    return [norm for norm in norms if not norm.weight.requires_grad]
