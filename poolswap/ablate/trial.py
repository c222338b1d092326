"""One trial from its definition to its numbers: load, swap, measure the cost, adapt, evaluate."""

from __future__ import annotations

import platform
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from poolswap.ablate.alone import replace_alone
from poolswap.ablate.costs import compare_costs
from poolswap.ablate.grid import Trial, parts_of
from poolswap.ablate.mix import is_mix, parse_mix
from poolswap.ablate.record import Record
from poolswap.ablate.runs import WEIGHTS, Result, SiteMove
from poolswap.ablate.study import Study
from poolswap.adapt import (
    Answers,
    Data,
    EpochRow,
    Recipe,
    content_digest,
    evaluate,
    finetune,
    image_groups,
    load_data,
    make_loader,
    recalibrate,
)
from poolswap.checkpoint import save_checkpoint
from poolswap.environment import find_device
from poolswap.errors import InputError
from poolswap.inputs import floating_tensor
from poolswap.load import is_checkpoint_path, load_model
from poolswap.models.load import ModelSpec
from poolswap.models.weights import load_into, read_state_dict
from poolswap.ops.backend import current
from poolswap.surgery.drift import measure_drift
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools
from poolswap.versions import versions

_SHIFT = 1  # pixels


def run_trial(trial: Trial, folder: Path, *, device: torch.device | str | None = None) -> Result:
    """Everything that is measured of the trial. Training keeps its state in `folder`, and goes on from there.

    `device` is the GPU where there is one. Raises whatever goes wrong.
    """
    start = time.perf_counter()
    device = torch.device(find_device(str(device) if device else trial.running.device))
    data, model, spec = load(trial, device)
    plan = plan_of(trial, model, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)  # what an operator draws for its parameters does not depend on earlier trials
        drift = measure_drift(model, plan, spec.input_size) if plan.swaps else None
        stock = deepcopy(model)
        swap_pools(model, plan)
    images = make_loader(data, trial.split, trial.batch_size, **trial.running.reading)
    costs = compare_costs(stock, model, next(iter(images))[0]) if trial.costs else ()
    del stock
    curve: tuple[EpochRow, ...] = ()
    if trial.trained is not None:
        load_into(model, read_state_dict(trial.trained), str(trial.trained))
    else:
        curve = _adapt(trial, model, data, plan, spec, folder)
    answers: list[Answers] = []
    measured = evaluate(model, images, shift=_SHIFT, answers=answers.append)
    if trial.running.keep_weights:
        _keep(trial, model, plan, spec, folder)
    return Result(
        top1=measured.top1,
        top5=measured.top5,
        loss=measured.loss,
        ece=measured.ece,
        shift_consistency=measured.shift_consistency,
        record=Record.of(answers, images.unread),
        curve=curve,
        costs=costs,
        parameters=sum(p.numel() for p in model.parameters()),
        drift=drift.output if drift else None,
        sites=tuple(SiteMove(path=site.path, local=site.local) for site in drift.sites) if drift else (),
        alone=replace_alone(model, trial.probe, spec, images, measured) if trial.probe else (),
        seconds=time.perf_counter() - start,
        environment=environment(device),
    )


def load(trial: Trial, device: torch.device | str) -> tuple[Data, nn.Module, ModelSpec]:
    """(data, model before the swap, its spec). The classifier is as wide as the data has classes, unless told.

    Raises InputError where the images are no longer those of the trial.
    """
    own, running = is_checkpoint_path(trial.model), trial.running
    splits = parts_of(trial.adapt, trial.split)
    place: dict[str, Any] = {**running.place, "splits": splits, "num_classes": trial.num_classes}
    model, spec = load_model(
        trial.model,
        weights=trial.weights,
        num_classes=trial.num_classes or (None if own else load_data(trial.data, **place).num_classes),
        in_chans=trial.in_chans,
        input_size=trial.input_size,
        model_args=trial.model_args,
        seed=trial.seed if trial.adapt == "scratch" else 0,
        device=device,
        trust_code=running.trust_code,
    )
    data = load_data(trial.data, input_size=spec.input_size, model=model, transform=trial.transform, **place)
    for part, digest in trial.content.items():
        if digest and content_digest(data.images(part)) != digest:  # type: ignore[arg-type]
            raise InputError(
                f"the {part} images of {trial.data} have changed since the study began", "run poolswap ablate again"
            )
    return data, model, spec


def groups_of(study: Study) -> tuple[str, ...] | None:
    """The groups of the images that trials evaluate. Raises InputError where the data does not have what is asked."""
    return image_groups(evaluated(study), study.group)


def evaluated(study: Study) -> Any:
    """The data set that trials evaluate. Raises InputError."""
    data = load_data(study.data, num_classes=study.num_classes, splits=[study.split], **study.running.place)
    return data.images(study.split)


def plan_of(trial: Trial, model: nn.Module, spec: ModelSpec) -> Plan:
    """The plan that replaces the trial's layers; an empty one for the control."""
    if trial.to is None:
        return Plan(model=spec.reference, input_size=spec.input_size)
    sites = find_pools(model, spec.input_size)
    numbers = {site.path: f"#{site.number}" for site in sites}  # a path may read like another selector
    missing = [path for path in trial.paths if path not in numbers]
    if missing:
        raise InputError(f"the model has no pooling site {missing[0]}", "run poolswap ablate again: the grid is old")
    chosen = parse_mix(trial.to) if is_mix(trial.to) else dict.fromkeys(trial.paths, trial.to)
    return make_plan(
        sites,
        None,
        swaps=[(numbers[path], operator) for path, operator in chosen.items()],
        include_global=True,
        init="published" if spec.weights.untrained else "identity",
        model=spec.reference,
        input_size=spec.input_size,
    )


def recipe_of(trial: Trial) -> Recipe:
    """How the trial is trained; its seed is the recipe's. Raises InputError for a field that no recipe has."""
    return Recipe.make({"batch_size": trial.batch_size, **trial.running.reading, **trial.recipe, "seed": trial.seed})


def environment(device: torch.device) -> dict[str, Any]:
    """What a reader must know to compare the numbers with others."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    used = {"backend": current(device.type).name, "threads": torch.get_num_threads()}
    return {**versions(), "device": f"{device.type}: {name}", **used}


def _adapt(
    trial: Trial, model: nn.Module, data: Data, plan: Plan, spec: ModelSpec, folder: Path
) -> tuple[EpochRow, ...]:
    """Adapt the model in its place; the epochs, where it is trained."""
    if trial.adapt == "recalibrate":
        plain = make_loader(data, "plain", trial.batch_size, seed=trial.seed, **trial.running.reading)
        recalibrate(model, plain, batches=trial.recalibrate_batches)
    elif trial.adapt in ("finetune", "scratch"):
        like = floating_tensor(model)
        place = str(like.device) if like is not None else None
        recipe, state = recipe_of(trial), folder / "training"
        return finetune(model, data, recipe, state, spec=spec, plan=plan, device=place).rows
    return ()


def _keep(trial: Trial, model: nn.Module, plan: Plan, spec: ModelSpec, folder: Path) -> None:
    said = {"adapt": trial.adapt, "seed": trial.seed, "data": trial.data, **trial.recipe}
    trained = trial.adapt in ("finetune", "scratch")
    kept = spec.trained(trial.data) if trained else spec
    save_checkpoint(model, folder / WEIGHTS, spec=kept, plan=plan, recipe=said, force=True)
