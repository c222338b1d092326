"""`poolswap convert`: load, find, plan, swap, measure, save."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolswap.cli import inspect
from poolswap.cli.options import (
    CheckpointOption,
    ExampleOption,
    ForceOption,
    InChansOption,
    InputSizeOption,
    ModelArgOption,
    ModelArgument,
    NumClassesOption,
    PretrainedOption,
    SeedOption,
    example_of,
    load,
)
from poolswap.cli.output import JsonOption, Output, QuietOption

if TYPE_CHECKING:
    from torch import nn

    from poolswap.export import ExportReport
    from poolswap.models.load import ModelSpec
    from poolswap.surgery.drift import Drift
    from poolswap.surgery.plan import Plan
    from poolswap.surgery.swap import SwapReport


class Kind(StrEnum):
    """`--kind`."""

    MAX = "max"
    AVG = "avg"


class GeometryChange(StrEnum):
    """`--geometry`."""

    KEEP = "keep"
    PAPER = "paper"


class Init(StrEnum):
    """`--init`."""

    IDENTITY = "identity"
    PUBLISHED = "published"


def convert(
    model: ModelArgument,
    layers: Annotated[
        str | None,
        typer.Option(help="first, last, all, N, first:N, last:N, or site numbers and globs: '#1,layer1.*'. [all]"),
    ] = None,
    to: Annotated[str, typer.Option(help="Pooling operator, with options: soft, soft:beta=2.")] = "soft",
    swap: Annotated[
        list[str] | None, typer.Option(metavar="SELECTOR=OPERATOR", help="Another operator for some sites.")
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only max or only average pooling.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave these paths alone.")] = None,
    include_global: Annotated[bool, typer.Option("--include-global", help="The head's global pooling too.")] = False,
    geometry: Annotated[
        GeometryChange, typer.Option(help="paper: a 3x3/2 p1 stem becomes 2x2/2, as in the published models.")
    ] = GeometryChange.KEEP,
    init: Annotated[
        Init | None,
        typer.Option(help="Start as the stock layer, or as published. [identity for trained weights]"),
    ] = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Run this plan instead of a selector.")] = None,
    plan_out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the plan: .yaml or .json.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Checkpoint. [MODEL-softpool.safetensors]")] = None,
    state_dict: Annotated[
        Path | None, typer.Option(metavar="FILE.pt", help="Also write the bare state dict, for torch.load.")
    ] = None,
    finetune: Annotated[
        str | None, typer.Option(metavar="DATA", help="Then train on this data, as poolswap finetune does.")
    ] = None,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="With --finetune: new BatchNorm statistics first.")
    ] = False,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="Recipe of --finetune, in YAML.")] = None,
    export: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="Also export the checkpoint: onnx, pt2, ... (poolswap export).")
    ] = None,
    pretrained: PretrainedOption = False,
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    num_classes: NumClassesOption = None,
    in_chans: InChansOption = None,
    input_size: InputSizeOption = None,
    model_args: ModelArgOption = None,
    example: ExampleOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Replace pooling layers, report the drift, and save a checkpoint that verifies."""
    from poolswap.checkpoint import NOTHING_TO_COMPARE, default_name, save_checkpoint
    from poolswap.errors import InputError
    from poolswap.export import default_path, export_model, find_format
    from poolswap.files import check_writable, save_state_dict, write_text
    from poolswap.operators.registry import parse_operator
    from poolswap.surgery.drift import measure_drift
    from poolswap.surgery.plan import Plan, make_plan
    from poolswap.surgery.sites import find_pools
    from poolswap.surgery.swap import swap_pools

    output = Output(json=as_json, quiet=quiet)
    given = Plan.read(plan) if plan else None
    if given:
        given.use(parse_operator(to)[0])  # runs a file of the user's own, which a plan that names it does not
    if given and (layers or swap or kind or exclude or include_global or init):
        raise InputError("--plan says which sites are replaced", "leave out the selectors, or leave out --plan")
    if plan_out and plan_out.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"{plan_out} is neither YAML nor JSON by its name", "--plan-out plan.yaml")
    if (recalibrate or recipe) and not finetune:
        raise InputError("--recalibrate and --recipe need data", "name it with --finetune DATA")
    if export:
        find_format(export).check_available()
    net, spec = load(
        model,
        pretrained=pretrained,
        checkpoint=checkpoint,
        seed=seed,
        num_classes=num_classes,
        in_chans=in_chans,
        input_size=input_size,
        model_args=model_args,
    )
    inputs = example_of(example)
    if given is None:
        given = make_plan(
            find_pools(net, spec.input_size, example=inputs),
            layers or (None if swap else "all"),
            to,
            op=kind.value if kind else None,
            exclude=exclude or (),
            include_global=include_global,
            geometry=geometry.value,
            init=init.value if init else "published" if spec.weights.untrained else "identity",
            swaps=[_pair(text) for text in swap or ()],
            model=spec.reference,
            input_size=spec.input_size,
        )
    if plan_out:
        write_text(plan_out, given.dumps("json" if plan_out.suffix == ".json" else "yaml"), force=force)
    if dry_run:
        _print_plan(output, given, spec)
        return
    target = out or Path(default_name(spec, given))
    exported = default_path(target, export) if export else None
    for path in (target, state_dict, exported):
        if path:
            check_writable(path, force=force)
    drift = measure_drift(net, given, spec.input_size, example=inputs)
    report = swap_pools(net, given, example=inputs)
    written = _recover(output, net, spec, given, finetune, target, recalibrate, recipe, force) if finetune else None
    if finetune:
        spec = spec.trained(finetune)
    manifest = save_checkpoint(net, target, spec=spec, plan=given, recipe=written, example=inputs, force=force)
    if state_dict:
        save_state_dict(net, state_dict, force=force)
    made = export_model(net, manifest, exported, to=export, force=force) if export and exported else None
    _print_conversion(output, spec, report, drift, target, made)
    if not manifest.fingerprint.compares:
        output.warn(f"{NOTHING_TO_COMPARE}, so {target} will not verify: let forward return tensors")


def _recover(
    output: Output,
    net: nn.Module,
    spec: ModelSpec,
    plan: Plan,
    name: str,
    target: Path,
    first_recalibrate: bool,
    recipe: Path | None,
    force: bool,
) -> dict[str, Any]:
    """Recalibrate and train the swapped model; returns what the checkpoint says of it."""
    from poolswap.adapt import Recipe, evaluate, load_data, loaders, recalibrate
    from poolswap.cli.data import train

    settings = Recipe.read(recipe) if recipe else Recipe()
    data = load_data(name, input_size=spec.input_size, model=net, num_classes=spec.num_classes)
    images, val = loaders(data, settings.batch_size, settings.workers, settings.seed, settings.on_bad_image)
    output.note(f"top-1 after the swap: {evaluate(net, val, shift=None).top1:.2f}%")
    if first_recalibrate:
        layers = recalibrate(net, images)
        after = evaluate(net, val, shift=None).top1
        output.note(f"top-1 after recalibrating {layers} BatchNorm layers: {after:.2f}%")
    folder = target.with_name(f"{target.stem}-training")
    train(output, net, data, settings, folder, spec=spec, plan=plan, resume=False, force=force)
    net.cpu().eval()
    return {**settings.model_dump(mode="json"), "data": data.name, "recalibrated": first_recalibrate}


def _pair(text: str) -> tuple[str, str]:
    from poolswap.errors import InputError

    selector, equals, operator = text.partition("=")
    if not equals or not selector or not operator:
        raise InputError(f"--swap {text!r} is not SELECTOR=OPERATOR", "write for example --swap 'layer1.*=soft'")
    return selector, operator


def _print_plan(output: Output, plan: Plan, spec: ModelSpec) -> None:
    output.json(plan)
    if spec.note:
        output.note(spec.note)
    output.table(
        f"{spec.reference}: {len(plan.paths)} to replace, nothing changed",
        [*inspect.COLUMNS[:-1], "to"],
        [[*inspect.row(swap.site)[:-1], _operator(swap.to, swap.options)] for swap in plan.swaps],
    )


def _print_conversion(
    output: Output, spec: ModelSpec, report: SwapReport, drift: Drift, target: Path, made: ExportReport | None
) -> None:
    by_path = {site.path: site for site in drift.sites}
    output.json(
        {
            "model": spec,
            "checkpoint": target,
            "replaced": len(report.swapped),
            "swapped": report.swapped,
            "lifted": report.lifted,
            "classifiers": report.classifiers,
            "drift": drift,
            "plan": report.plan,
            "export": made,
        }
    )
    if spec.note:
        output.note(spec.note)
    if spec.weights.untrained:
        output.warn(
            f"the weights are random (seed {spec.weights.seed}): give --pretrained or --checkpoint FILE for others"
        )
    for new in report.classifiers:
        output.warn(f"the classifier {new.path} is new and untrained, {new.before} -> {new.after}: train it")
    rows = []
    for swapped in report.swapped:
        moved = by_path.get(swapped.path)
        shifts = [moved.local, moved.total] if moved else [None, None]
        rows.append([swapped.path, swapped.before, swapped.after, *shifts])
    output.table(None, ["path", "before", "after", "drift alone", "drift in place"], rows)
    output.note(f"{spec.reference}: {len(report.swapped)} replaced, weights {spec.weights}")
    if drift.output is not None:
        output.note(f"the outputs moved by {drift.output:.3g} (relative, on seeded noise)")
    output.note(f"saved {target}; prove it with: poolswap verify {target}")
    if made:
        worst = (
            f"{made.difference:.1e} (relative) from the model at most" if made.difference is not None else "unverified"
        )
        output.note(f"saved {made.path} ({made.format}): {worst}")


def _operator(name: str, options: dict[str, object]) -> str:
    return name + (":" + ",".join(f"{key}={value}" for key, value in options.items()) if options else "")
