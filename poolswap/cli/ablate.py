"""`poolswap ablate`: how many layers, which operator, which adaptation; resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolswap.cli.options import (
    CheckpointOption,
    InChansOption,
    InputSizeOption,
    ModelArgOption,
    NumClassesOption,
    PretrainedOption,
)
from poolswap.cli.output import JsonOption, Output, QuietOption

if TYPE_CHECKING:
    from poolswap.ablate.progress import StudyProgress
    from poolswap.ablate.run import Engine


class EngineName(StrEnum):
    """`--engine`."""

    LOCAL = "local"
    RAY = "ray"


def ablate(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="As in convert; the study may name it.")] = None,
    study: Annotated[Path | None, typer.Option(metavar="FILE", help="A study in YAML; options override it.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="As in evaluate: digits, a folder, ...")] = None,
    counts: Annotated[str | None, typer.Option(help="How many layers to replace: 0..all, 1,3,all. [0..all]")] = None,
    order: Annotated[str | None, typer.Option(help="forward, backward, single (one at a time), by comma.")] = None,
    operators: Annotated[str | None, typer.Option(help="Operators, by comma. [soft]")] = None,
    adapt: Annotated[str | None, typer.Option(help="none, recalibrate, finetune, scratch, by comma. [none]")] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="The same as --adapt scratch.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds. [3]")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the training recipe: epochs=5.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a batch. [64]")] = None,
    pretrained: PretrainedOption = False,
    checkpoint: CheckpointOption = None,
    num_classes: NumClassesOption = None,
    in_chans: InChansOption = None,
    input_size: InputSizeOption = None,
    model_args: ModelArgOption = None,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Runs folder; one that exists is gone on with.")] = Path(
        "ablation"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Run part I of N only; report merges.")] = None,
    engine: Annotated[EngineName, typer.Option(help="ray: tasks on a Ray cluster (RAY_ADDRESS).")] = EngineName.LOCAL,
    cpus: Annotated[float, typer.Option(min=0, help="Processors of a Ray task.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a Ray task.")] = 0,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first trial that fails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid and its time, and run nothing.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Replace 0 to all layers, adapt each model and the unmodified control alike, and keep what they measure."""
    from poolswap.ablate.estimate import estimate_seconds
    from poolswap.ablate.grid import grid_of
    from poolswap.ablate.progress import StudyProgress, duration
    from poolswap.ablate.run import parse_shard, run_trials
    from poolswap.ablate.runs import RunFolder
    from poolswap.ablate.study import Study
    from poolswap.errors import CheckError, InputError

    output = Output(json=as_json, quiet=quiet)
    if from_scratch and adapt:
        raise InputError("--from-scratch is an --adapt of its own", "give one of them: --adapt scratch,finetune")
    fields = Study.fields(study)
    given = {
        "model": model,
        "data": data,
        "counts": counts,
        "order": _parts(order),
        "operators": _operators(operators),
        "adapt": ["scratch"] if from_scratch else _parts(adapt),
        "seeds": seeds,
        "batch_size": batch_size,
        "weights": _weights(pretrained, checkpoint),
        "num_classes": num_classes,
        "in_chans": in_chans,
        **_shapes(input_size, model_args, setting, fields),
    }
    asked = Study.make({**fields, **{name: value for name, value in given.items() if value is not None}})
    grid = grid_of(asked)
    mine = grid.shard(*parse_shard(shard)) if shard else grid.trials
    folder = RunFolder(out)
    pending = {key: trial for key, trial in mine.items() if folder.result(key) is None}
    seconds = estimate_seconds(pending.values()) / jobs
    output.note(
        f"{len(grid.trials)} trials over {len(grid.layers)} layers, {len(pending)} to run here: "
        f"about {duration(seconds)} with {jobs} at a time"
    )
    if dry_run:
        output.json({"study": asked, "cells": grid.cells, "pending": list(pending), "seconds": seconds})
        output.table(
            None,
            ["layers", "order", "to", "adapt", "seed", "trial", "done"],
            [
                [c.layers, c.order, c.to, c.adapt, c.seed, c.key, c.key not in pending]
                for c in grid.cells
                if c.key in mine
            ],
        )
        return
    folder.open(asked, grid)
    progress = StudyProgress(folder, grid, pending, jobs)
    with _shown(output, progress) as seen:
        outcomes = run_trials(folder, pending, _engine(engine, jobs, cpus, gpus), fail_fast=fail_fast, seen=seen)
    failed = [key for key, outcome in outcomes.items() if outcome == "failed"]
    output.json({"run": out, "outcomes": outcomes})
    output.note(progress.line())
    output.hint(f"poolswap report {out}")
    if failed:
        reason = folder.failure(failed[0])
        raise CheckError(
            f"{len(failed)} of {len(pending)} trials failed; the first: {reason.error if reason else 'unknown'}",
            f"see {folder.trial(failed[0])}; run again to try them again",
        )


def _engine(name: EngineName, jobs: int, cpus: float, gpus: float) -> Engine:
    from poolswap.ablate.run import local_engine

    if name is EngineName.LOCAL:
        return local_engine(jobs)
    from poolswap.ablate.cluster import ray_engine

    return ray_engine(cpus=cpus, gpus=gpus)


def _parts(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text is not None else None


def _operators(text: str | None) -> list[str] | None:
    from poolswap.operators.registry import split_operators

    return split_operators(text) if text is not None else None


def _weights(pretrained: bool, checkpoint: Path | None) -> str | None:
    from poolswap.errors import InputError

    if pretrained and checkpoint:
        raise InputError("--pretrained and --checkpoint are two sources of weights", "give one of them")
    return "pretrained" if pretrained else str(checkpoint) if checkpoint else None


def _shapes(
    input_size: str | None, model_args: list[str] | None, recipe: list[str] | None, fields: dict[str, Any]
) -> dict[str, Any]:
    """The options that are parsed first; pairs are added to those of the study."""
    from poolswap.models.load import parse_input_size, parse_model_args

    return {
        "input_size": parse_input_size(input_size) if input_size else None,
        "model_args": {**fields.get("model_args", {}), **parse_model_args(model_args)} if model_args else None,
        "recipe": {**fields.get("recipe", {}), **parse_model_args(recipe, "setting")} if recipe else None,
    }


@contextmanager
def _shown(output: Output, progress: StudyProgress) -> Iterator[Callable[[str, Any], None]]:
    """A live table on a terminal, a line for each trial elsewhere."""
    import sys

    if output.quiet:
        yield progress.add
        return
    if not sys.stderr.isatty():

        def say(key: str, outcome: Any) -> None:
            progress.add(key, outcome)
            output.note(progress.last())

        yield say
        return
    from rich.console import Console
    from rich.live import Live

    with Live(get_renderable=progress.table, console=Console(stderr=True), refresh_per_second=2):
        yield progress.add
