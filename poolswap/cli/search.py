"""`poolswap search`: which operator at which site, under a budget, confirmed on images that nothing has seen."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poolswap.cli.ablate import Execution
from poolswap.cli.options import BatchSizeOption, ForceOption, Model, ModelArgument, Source
from poolswap.cli.output import Output
from poolswap.cli.parsing import parse_pairs

if TYPE_CHECKING:
    from poolswap.search import Found
    from poolswap.search.search import Change

EXAMPLES = (
    "poolswap search resnet18 --pretrained --data photos/ --to soft,gem,avg",
    "poolswap search stock.safetensors --data digits --latency 1.1 -o found",
)


def search(
    model: ModelArgument,
    *,
    weights: Model,
    data: Annotated[
        str, typer.Option(metavar="DATA", help="As in evaluate; it has test images.", rich_help_panel="Data")
    ],
    source: Source,
    to: Annotated[str, typer.Option("--to", metavar="LIST", help="Operators to choose from.")] = "soft,avg,lp,gem,lse",
    goal: Annotated[
        Literal["top1", "loss", "shift", "latency"],
        typer.Option("--for", help="What to gain: top-1, loss, shift consistency, time.", rich_help_panel="Budget"),
    ] = "top1",
    max_drop: Annotated[
        float, typer.Option(min=0, metavar="POINTS", help="Most loss of top-1.", rich_help_panel="Budget")
    ] = 0.3,
    latency: Annotated[
        float | None,
        typer.Option(metavar="RATIO", help="Most time of a forward, 1 for the stock one's.", rich_help_panel="Budget"),
    ] = None,
    params: Annotated[
        float | None, typer.Option(metavar="RATIO", help="Most parameters, likewise.", rich_help_panel="Budget")
    ] = None,
    op: Annotated[Literal["max", "avg"] | None, typer.Option("--op", help="Only this kind of pooling.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave these alone.")] = None,
    include_global: Annotated[bool, typer.Option("--include-global", help="The head's global pooling too.")] = False,
    adapt: Annotated[
        Literal["none", "recalibrate", "finetune", "scratch"],
        typer.Option(metavar="HOW", help="After each replacement: none, recalibrate, finetune or scratch."),
    ] = "recalibrate",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, each with its control.")] = 5,
    recipe: Annotated[Path | None, typer.Option(help="Recipe of the training, in YAML.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe: epochs=5.")
    ] = None,
    batch_size: BatchSizeOption = 64,
    execution: Execution,
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Runs folder, as ablate's.", rich_help_panel="Output"),
    ] = Path("search"),
    plan_out: Annotated[
        Path | None,
        typer.Option("--plan-out", help="The plan.", show_default="DIR/plan.yaml", rich_help_panel="Output"),
    ] = None,
    force: ForceOption = False,
    output: Output,
) -> None:
    """Choose an operator for each site, under a budget, and confirm it."""
    from poolswap.ablate.study import Study
    from poolswap.adapt import Recipe, check_recipe
    from poolswap.errors import CheckError, InputError, NothingToReplaceError
    from poolswap.files import check_writable, write_text
    from poolswap.search import Budget, search

    if execution.shard:
        raise InputError("a search decides by all of its trials", "leave out --shard; --jobs and --engine share them")
    budget = Budget.make({"max_drop": max_drop, "latency": latency, "params": params})
    fields = {
        **{"model": model, "data": data, "weights": weights.weights, "num_classes": weights.num_classes},
        **{"in_chans": weights.in_chans, "input_size": weights.size, "model_args": weights.arguments},
        **{"operators": to, "op": op, "exclude": exclude or [], "include_global": include_global},
        **{"adapt": adapt, "seeds": seeds, "batch_size": batch_size, "margin": max_drop or None},
        "recipe": {**Recipe.fields(recipe), **parse_pairs(setting or [], "--set")},
        "running": {**_place(source), "trust_code": weights.trust_code},
    }
    study = Study.make({name: value for name, value in fields.items() if value is not None})
    if adapt in ("finetune", "scratch") or study.recipe:
        check_recipe(Recipe.make(study.recipe))
    target = plan_out or folder / "plan.yaml"
    if plan_out:
        check_writable(plan_out, force=force)
    found = search(folder, study, budget, execution.start(), goal=goal, seen=_told(output))
    _print(output, found)
    output.document({**found.model_dump(mode="json"), "holds": found.holds, "gains": found.gains})
    if found.plan is None:
        raise NothingToReplaceError(
            f"no operator gains {goal} within the budget at any site, or together", "the stock model is the choice"
        )
    write_text(target, found.plan.dumps("json" if target.suffix == ".json" else "yaml"), force=True)
    output.note(f"saved {target}")
    if not found.holds:
        raise CheckError(
            f"the test images do not exclude a loss of more than {max_drop:g} points: {_interval(found)}",
            "more seeds or test images would say more; the plan is kept",
        )
    output.hint(shlex.join(["poolswap", "convert", model, *weights.typed, "--plan", str(target)]))


def _place(source: Source) -> dict[str, object]:
    from poolswap.ablate.study import Running

    return {name: value for name, value in asdict(source).items() if value and name in Running.model_fields}


def _told(output: Output) -> Callable[[str, int, int], None]:
    return lambda what, done, of: output.note(f"{what}: {done} of {of}")


def _interval(found: Found) -> str:
    assert found.test is not None
    change = found.test.top1
    return f"{change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"


def _print(output: Output, found: Found) -> None:
    chosen = {(one.path, one.to) for one in found.chosen}
    columns = ["site", "operator", "gain", "top-1", "latency", "parameters", "chosen"]
    rows = [
        [one.path, one.to, one.value, one.top1, 1 + one.latency, 1 + one.params, (one.path, one.to) in chosen]
        for one in found.candidates
    ]
    output.table(f"each site alone, gain in {found.goal}, on validation images", columns, rows)
    for text, error in found.failed.items():
        output.warn(f"{text} could not be measured: {error}")
    for one in found.dropped:
        output.note(f"{one.path}={one.to} was taken out again: together they left the budget or gained nothing")
    parts = {"validation images, which chose it": found.val, "test images": found.test}
    for name, change in parts.items():
        if change is not None:
            output.note(_line(name, change, found))
    if found.test is not None:
        gain = "a gain is shown" if found.gains else "no gain is shown"
        by = "beyond the range of its rounds and their noise" if found.goal == "latency" else "with 95% confidence"
        output.note(f"on the test images {gain} in {found.goal}, {by}")


def _line(name: str, change: Change, found: Found) -> str:
    top1 = f"top-1 {change.top1.mean:+.2f} [{change.top1.low:+.2f}, {change.top1.high:+.2f}] points"
    value = ""
    if found.goal != "top1":
        what, unit = ("% of the time saved", 100) if found.goal == "latency" else (found.goal, 1)
        mean, low, high = (unit * end for end in change.value)
        value = f", {what} {mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    latency = "" if change.latency is None else f", {change.latency:.2f} times the time"
    return f"{name}: {top1}{value}{latency}, {change.params:.3f} times the parameters, {change.seeds} seeds"
