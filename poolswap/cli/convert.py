"""`poolswap convert`: load, find, plan, swap, measure, save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from poolswap.cli import inspect
from poolswap.cli.following import following
from poolswap.cli.options import (
    ExampleOption,
    ForceOption,
    IncludeOption,
    Model,
    ModelArgument,
    SeedOption,
    Source,
    example_of,
)
from poolswap.cli.output import Output
from poolswap.cli.training import epoch_lines, recipe_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolswap.convert import Conversion
    from poolswap.models.load import ModelSpec
    from poolswap.surgery.conv_cost import ConvCost
    from poolswap.surgery.plan import Plan

EXAMPLES = (
    "poolswap convert resnet50 --pretrained",
    "poolswap convert resnet50d --layers first --to lp:p=3 --dry-run",
)


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Which sites are replaced."""

    panel: ClassVar[str] = "Sites"

    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="SELECTOR",
            help="first, last, all, N, first:N, last:N, or numbers and globs: '#1,layer1.*'.",
            show_default="all",
        ),
    ] = None
    op: Annotated[Literal["max", "avg", "conv"] | None, typer.Option("--op", help="Only this kind of site.")] = None
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Leave these paths alone.")] = (
        None
    )
    include_global: Annotated[bool, typer.Option("--include-global", help="The head's global pooling too.")] = False
    include: IncludeOption = None
    plan: Annotated[Path | None, typer.Option("--plan", help="Run this plan instead of a selector.")] = None

    @property
    def kinds(self) -> list[Literal["convs"]]:
        """What to look for beside pooling."""
        return [self.include] if self.include else []

    @property
    def chosen(self) -> bool:
        """Whether anything but a plan chooses."""
        return bool(self.layers or self.op or self.exclude or self.include_global or self.include)

    def check(self) -> None:
        """Raise InputError for a selector that is wrong whatever the model."""
        from poolswap.surgery.syntax import check_selector

        if self.layers is not None:
            check_selector(self.layers)

    @property
    def misspelt(self) -> bool:
        """Whether the selector's own error must not wait behind that of a file that exists."""
        from poolswap.surgery.syntax import misspelt

        return self.layers is not None and misspelt(self.layers)


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """What comes in."""

    panel: ClassVar[str] = "Operator"

    to: Annotated[str, typer.Option("--to", metavar="OPERATOR", help="With its options: soft, soft:beta=2.")] = "soft"
    swap: Annotated[
        list[str] | None, typer.Option("--swap", metavar="SITES=OPERATOR", help="Another operator for some sites.")
    ] = None
    geometry: Annotated[
        Literal["keep", "paper"], typer.Option("--geometry", help="paper: a 3x3/2 p1 stem becomes 2x2/2.")
    ] = "keep"
    init: Annotated[
        Literal["identity", "published"] | None,
        typer.Option(
            "--init",
            help="Start as the stock layer, or as published.",
            show_default="identity for trained weights",
        ),
    ] = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """--swap, parsed."""
        from poolswap.errors import InputError

        found = [text.partition("=") for text in self.swap or ()]
        for selector, _, operator in found:
            if not selector or not operator:
                raise InputError("--swap is SITES=OPERATOR", "write for example --swap 'layer1.*=soft'")
        return [(selector, operator) for selector, _, operator in found]


def convert(
    model: ModelArgument,
    *,
    sites: Sites,
    replacement: Replacement,
    weights: Model,
    example: ExampleOption = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Images, as in finetune.", rich_help_panel="Data")
    ] = None,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Afterwards: new BatchNorm statistics.", rich_help_panel="Data")
    ] = False,
    finetune: Annotated[bool, typer.Option("--finetune", help="Afterwards: training.", rich_help_panel="Data")] = False,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Recipe of the training, in YAML.", rich_help_panel="Data")
    ] = None,
    source: Source,
    path: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The checkpoint.",
            show_default="MODEL-softpool",
            rich_help_panel="Output",
        ),
    ] = None,
    plan_out: Annotated[
        Path | None, typer.Option("--plan-out", help="Write the plan: .yaml or .json.", rich_help_panel="Output")
    ] = None,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="FORMAT", help="Export it too: onnx, pt2, ...", rich_help_panel="Output"),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail where a chosen site cannot be replaced.", rich_help_panel="Output"),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and change nothing.", rich_help_panel="Output")
    ] = False,
    force: ForceOption = False,
    output: Output,
    seed: SeedOption = None,
) -> None:
    """Replace pooling layers, and save a checkpoint that verifies."""
    sites.check()  # before torch is imported
    from poolswap.convert import check_outputs, convert_model
    from poolswap.errors import InputError
    from poolswap.files import check_writable, write_text
    from poolswap.load import checkpoint_of
    from poolswap.operators.registry import parse_operator
    from poolswap.surgery.conv_cost import conv_costs
    from poolswap.surgery.plan import Plan, make_plan
    from poolswap.surgery.sites import find_pools

    operator, _ = parse_operator(replacement.to)
    plan = Plan.read(sites.plan) if sites.plan else None
    if plan:
        plan.use(operator)  # of a file of the user's own, which a plan that names it does not run
    if plan and (sites.chosen or replacement.swap or replacement.init):
        raise InputError("--plan says which sites are replaced", "leave out the selectors, or leave out --plan")
    if plan_out and plan_out.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"{plan_out} is neither YAML nor JSON by its name", "--plan-out plan.yaml")
    if (recalibrate or finetune) != bool(data) or (recipe and not finetune):
        raise InputError("--recalibrate and --finetune need --data, and it needs one of them", "--data DATA --finetune")
    settings = recipe_of(recipe, {**source.reading, **({} if seed is None else {"seed": seed})}) if data else None
    target = path or _default_path(model, plan, sites, replacement)

    def check_places() -> None:
        if plan_out:
            check_writable(plan_out, force=force)
        if not dry_run:
            check_outputs(target, export=export, force=force)

    if not sites.misspelt:
        check_places()
    if data:
        from poolswap.adapt import check_data

        check_data(data)
    place = source.place
    planned = plan.input_size if plan and weights.size is None and checkpoint_of(model) is None else None
    net, spec = weights.load(model, seed=seed or 0, **({"input_size": planned} if planned else {}))
    inputs = example_of(example)
    if plan is None:
        plan = make_plan(
            find_pools(net, spec.input_size, example=inputs, include=sites.kinds),
            sites.layers or (None if replacement.swap else "all"),
            replacement.to,
            op=sites.op,
            exclude=sites.exclude or (),
            include_global=sites.include_global,
            geometry=replacement.geometry,
            init=replacement.init or ("published" if spec.weights.untrained else "identity"),
            swaps=replacement.pairs,
            model=spec.reference,
            input_size=spec.input_size,
        )
    if sites.misspelt:
        check_places()
    for left in plan.left:
        output.warn(f"{left.path or 'the model itself'} stays stock: it {left.reason}")
    if strict:
        plan.check_whole()
    if plan_out:
        write_text(plan_out, plan.dumps("json" if plan_out.suffix == ".json" else "yaml"), force=force)
    costs = conv_costs(net, plan)
    _print_costs(output, costs)
    if dry_run:
        _print_plan(output, plan, spec)
        return
    recovery = None
    if data and settings:
        from poolswap.adapt.recover import Recovery

        images = source.data(data, input_size=spec.input_size, model=net, num_classes=spec.num_classes)
        recovery = Recovery(
            data=images,
            recalibrate=recalibrate,
            train=finetune,
            recipe=settings,
            device=place,
            on_evaluation=lambda done, found: output.note(f"top-1 {done}: {found.top1:.2f}%"),
            on_epoch=epoch_lines(output, settings),
        )
    made = convert_model(net, spec, plan, target, recovery=recovery, export=export, example=inputs, force=force)
    _print_conversion(output, made, costs)


def _default_path(model: str, plan: Plan | None, sites: Sites, replacement: Replacement) -> Path:
    """The name that the checkpoint will have, without the model."""
    from poolswap.checkpoint import default_name
    from poolswap.load import checkpoint_of
    from poolswap.manifest import read_manifest
    from poolswap.models.load import name_of
    from poolswap.operators.registry import parse_operator

    own = checkpoint_of(model)
    name = read_manifest(own).model.name if own else name_of(model)
    planned = [replacement.to] * bool(sites.layers or not replacement.swap) + [text for _, text in replacement.pairs]
    names = plan.operators if plan else dict.fromkeys(parse_operator(text)[0].name for text in planned)
    return Path(default_name(name, names))


def _print_costs(output: Output, costs: Sequence[ConvCost]) -> None:
    """What convolutions without their stride cost: said before anything is done."""
    if not costs:
        return
    output.warn("without its stride a convolution works on every element, for one image and the forward pass:")
    for cost in costs:
        megabytes = f"{cost.map_bytes / 2**20:.2g} MiB more memory"
        output.note(f"  {cost.path}: {cost.work:.3g} times the work, {cost.time:.2g} times the time, {megabytes}")


def _print_plan(output: Output, plan: Plan, spec: ModelSpec) -> None:
    output.document(plan)
    if spec.note:
        output.note(spec.note)
    output.table(
        f"{spec.reference}: {len(plan.paths)} to replace, nothing changed",
        [*inspect.COLUMNS[:-1], "to"],
        [[*inspect.row(swap.site)[:-1], inspect.operator(swap)] for swap in plan.swaps],
        spare=inspect.SPARE,
    )


def _print_conversion(output: Output, made: Conversion, costs: Sequence[ConvCost]) -> None:
    from poolswap.checkpoint import NOTHING_TO_COMPARE

    spec, report, drift = made.spec, made.swap, made.drift
    output.document(
        {
            "model": spec,
            "checkpoint": made.path,
            "replaced": len(report.swapped),
            "swapped": report.swapped,
            "lifted": report.lifted,
            "classifiers": report.classifiers,
            "drift": drift,
            "conv_costs": costs,
            "recovered": made.recovered,
            "plan": report.plan,
            "export": made.export,
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
    swaps, moves = {swap.site.path: swap for swap in report.plan.swaps}, {site.path: site for site in drift.sites}
    rows = []
    for one in report.swapped:
        swap, move = swaps[one.path], moves.get(one.path)
        names = [one.before, one.after] if output.verbose else [inspect.pooling(swap.site), inspect.operator(swap)]
        rows.append([one.path, *names, *([move.local, move.total] if move else [None, None])])
    output.table(None, ["path", "before", "after", "drift alone", "drift in place"], rows, spare=["drift alone"])
    output.note(f"{spec.reference}: {len(report.swapped)} replaced, weights {spec.weights}")
    if drift.output is not None:
        output.note(f"the outputs moved by {drift.output:.3g} (relative, on seeded noise)")
    output.note(f"saved {made.path}; prove it with: {following('verify', made.path)}")
    if made.export:
        worst = made.export.difference
        far = "unverified" if worst is None else f"{worst:.1e} (relative) from the model at most"
        output.note(f"saved {made.export.path} ({made.export.format}): {far}")
    if not made.manifest.fingerprint.compares:
        output.warn(f"{NOTHING_TO_COMPARE}, so {made.path} will not verify: let forward return tensors")
