"""`poolswap ablate`: how many layers, which operator, which adaptation; resumable."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from poolswap.cli.following import resumable
from poolswap.cli.options import Model, OperatorsOption, Source
from poolswap.cli.output import Output
from poolswap.cli.parsing import parse_pairs

if TYPE_CHECKING:
    from poolswap.ablate.progress import StudyProgress
    from poolswap.ablate.run import Engine, Outcome
    from poolswap.ablate.study import Study

EXAMPLES = (
    "poolswap ablate resnet18 --pretrained --data photos/ --dry-run",
    "poolswap ablate resnet18 --data digits --from-scratch --jobs 2 -o run",
)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Who runs the trials."""

    panel: ClassVar[str] = "Execution"

    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Run part I of N only; report merges.")] = None
    engine: Annotated[Literal["local", "ray"], typer.Option(help="ray: a cluster's tasks (RAY_ADDRESS).")] = "local"
    cpus: Annotated[float, typer.Option(min=0, help="Processors of a Ray task.")] = 1
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of a Ray task.")] = 0
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first trial that fails.")] = False

    def start(self) -> Engine:
        """The engine. Raises MissingExtraError without Ray."""
        if self.engine == "ray":
            from poolswap.ablate.cluster import ray_engine

            return ray_engine(cpus=self.cpus, gpus=self.gpus)
        from poolswap.ablate.run import local_engine

        return local_engine(self.jobs)


def ablate(
    weights: Model,
    source: Source,
    execution: Execution,
    output: Output,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="As in convert; the study may name it.")] = None,
    study: Annotated[Path | None, typer.Option(help="A study in YAML; options override it.")] = None,
    counts: Annotated[
        str | None, typer.Option(metavar="LIST", help="How many layers: 0..all, 1,3,all.", show_default="0..all")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="forward, backward, single (one at a time).", show_default="forward"),
    ] = None,
    operators: OperatorsOption = None,
    op: Annotated[Literal["max", "avg"] | None, typer.Option("--op", help="Only this kind of pooling.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave these alone.")] = None,
    include_global: Annotated[bool, typer.Option("--include-global", help="The head's global pooling too.")] = False,
    adapt: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="none, recalibrate, finetune, scratch, by comma.", show_default="none"),
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="The same as --adapt scratch.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.", show_default="5")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="Add seeds until 'width < 1', in points of top-1.")
    ] = None,
    most_seeds: Annotated[int, typer.Option("--most-seeds", min=2, max=10_000, help="Where --until ends.")] = 20,
    halving: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the N best of each adaptation get all seeds; others fewer."),
    ] = None,
    detect: Annotated[
        float | None,
        typer.Option(min=0.01, max=100, metavar="POINTS", help="Say what it takes to see that much, and run nothing."),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="POINTS", help="Points of top-1 that do not matter.", show_default="0.5"),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe of the training, in YAML.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe: epochs=5.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="As in evaluate: digits, a folder, ...", rich_help_panel="Data")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images in a batch.", show_default="64", rich_help_panel="Data")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="Images that belong together: parent, column:NAME, or a pattern.",
            show_default="the data's own",
            rich_help_panel="Data",
        ),
    ] = None,
    base: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Stock weights, once for each seed.", rich_help_panel="Model"),
    ] = None,
    confirm: Annotated[
        str | None,
        typer.Option(
            metavar="VARIANT", help="Judge one variant of the run in DIR on test images: 'to=soft, layers=3'."
        ),
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Keep each trial's network.", rich_help_panel="Output")
    ] = False,
    folder: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Runs folder; one that exists is gone on with.",
            rich_help_panel="Output",
        ),
    ] = Path("ablation"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the grid and its time, and run nothing.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Ask how many layers, which operator, which adaptation."""
    from poolswap.ablate.confirm import confirmation
    from poolswap.ablate.estimate import estimate_seconds
    from poolswap.ablate.grid import grid_of
    from poolswap.ablate.halving import check_halving, next_round
    from poolswap.ablate.power import needs, say
    from poolswap.ablate.progress import StudyProgress, duration
    from poolswap.ablate.report import summarise
    from poolswap.ablate.run import parse_shard, run_trials
    from poolswap.ablate.runs import RunFolder
    from poolswap.ablate.sequential import begin, continued
    from poolswap.ablate.study import Study
    from poolswap.ablate.trial import groups_of
    from poolswap.adapt import Recipe, check_recipe
    from poolswap.errors import CheckError, InputError

    if base and weights.is_given:
        raise InputError("--base gives the weights already", "leave out --checkpoint and --pretrained")
    if from_scratch and adapt:
        raise InputError("--from-scratch is an --adapt of its own", "give one of them: --adapt scratch,finetune")
    of_folder = study is None and (confirm or (detect is not None and model is None))
    if of_folder:
        RunFolder(folder).study()  # says in words where there is none
    fields = Study.fields(folder / "study.yaml" if of_folder else study)
    for name in ("recipe", "transform", "model_args", "running"):
        if not isinstance(fields.get(name, {}), dict):
            raise InputError(f"the study's {name} is no list of fields", f"write for example {name}: {{key: value}}")
    typed = {"model": model, "operators": operators}
    Study.check_code({k: v for k, v in fields.items() if not typed.get(k)}, trust_code=weights.trust_code)
    place = asdict(source) | {"keep_weights": keep_weights}
    del place["transform"]
    given = {
        "model": model,
        "data": data,
        "counts": counts,
        "order": _parts(order),
        "operators": operators or None,
        "op": op,
        "exclude": exclude,
        "include_global": include_global,
        "adapt": ["scratch"] if from_scratch else _parts(adapt),
        "seeds": seeds or (len(base) if base else None),
        "batch_size": batch_size,
        "group": group,
        "margin": margin,
        "halving": halving,
        "weights": list(map(str, base or [])) or (weights.weights if weights.is_given else None),
        "num_classes": weights.num_classes,
        "in_chans": weights.in_chans,
        "input_size": weights.size,
        "recipe": {
            **fields.get("recipe", {}),
            **Recipe.fields(recipe),
            **parse_pairs(setting or [], "--set"),
        },
        "transform": {**fields.get("transform", {}), **source.transforms},
        "model_args": {**fields.get("model_args", {}), **weights.arguments},
        "running": {
            **fields.get("running", {}),
            **{name: value for name, value in place.items() if value},
            "trust_code": weights.trust_code,  # a study does not vouch for itself
        },
    }
    asked = Study.make({**fields, **{name: value for name, value in given.items() if value}})
    if {"finetune", "scratch"} & {*asked.adapt} or asked.recipe:
        check_recipe(Recipe.make(asked.recipe))
    if detect and confirm:
        raise InputError("--detect runs nothing, and --confirm judges", "leave out one of them")
    asked = begin(asked, until, most_seeds) if until else asked
    if asked.halving:
        check_halving(asked)
    runs = RunFolder(folder)
    final = None
    if confirm:
        runs, asked, final = confirmation(runs, asked, confirm)
    if (asked.until or asked.halving) and execution.shard:
        raise InputError("what runs next depends on all results, and a shard has its own", "run it without --shard")
    if detect:
        found, images = needs(asked, runs, detect)
        output.document({"needs": found})
        for one in found:
            output.note(say(one, detect, images))
        return
    if not dry_run:
        runs.check()
    groups = groups_of(asked)
    outcomes: dict[str, Outcome] = {}
    following: Study | None = asked
    while following is not None:
        asked, grid = following, final or grid_of(following)
        mine = grid.shard(*parse_shard(execution.shard)) if execution.shard else grid.trials
        left = {key: trial for key, trial in mine.items() if runs.result(key) is None}
        pending = next_round(asked, grid, runs.result, outcomes) if asked.halving else left
        seconds = estimate_seconds(pending.values(), jobs=execution.jobs)
        output.note(
            f"{len(grid.trials)} trials over {len(grid.layers)} layers, {len(pending)} to run here: "
            f"about {duration(seconds)} with {execution.jobs} at a time"
        )
        if dry_run:
            output.document({"study": asked, "cells": grid.cells, "pending": list(pending), "seconds": seconds})
            output.table(
                None,
                ["layers", "order", "to", "adapt", "seed", "trial", "done"],
                [
                    [c.layers, c.order, c.to, c.adapt, c.seed, c.key, c.key not in left]
                    for c in grid.cells
                    if c.key in mine
                ],
            )
            return
        runs.open(asked, grid, groups)
        progress = StudyProgress(runs, grid, pending, execution.jobs, seconds)
        with resumable("the same line goes on where it stopped"), _shown(output, progress) as seen:
            outcomes |= run_trials(runs, pending, execution.start(), fail_fast=execution.fail_fast, seen=seen)
        output.note(progress.line())
        failed = [key for key, outcome in outcomes.items() if outcome == "failed"]
        widths = summarise([runs]).widths if asked.until and not failed else ()
        following = continued(asked, widths)
        elsewhere = "elsewhere" in outcomes.values()  # the other process goes on with what it finds
        if asked.halving and not elsewhere and next_round(asked, grid, runs.result, outcomes):
            following, final = asked, grid
        if widths:
            output.note(f"{len(asked.seeds)} seeds: the widest interval is {max(widths):.2f} points")
    output.document({"run": runs.path, "outcomes": outcomes})
    output.hint(f"poolswap report {shlex.quote(str(runs.path))}")
    if failed:
        reason = runs.failure(failed[0])
        raise CheckError(
            f"{len(failed)} of {len(outcomes)} trials failed; the first: {reason.error if reason else 'unknown'}",
            f"see {runs.trial(failed[0])}; run again to try them again",
        )


def _parts(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",")] if text is not None else None


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
