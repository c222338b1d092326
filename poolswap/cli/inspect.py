"""`poolswap inspect`: every pooling site of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolswap.cli.options import Architecture, ExampleOption, IncludeOption, ModelArgument, example_of
from poolswap.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolswap.surgery.plan import Swap
    from poolswap.surgery.sites import PoolSite


EXAMPLES = ("poolswap inspect inception_v3", "poolswap inspect torchvision:googlenet --input-size 3,96,96")


def inspect(
    model: ModelArgument,
    architecture: Architecture,
    output: Output,
    example: ExampleOption = None,
    include: IncludeOption = None,
) -> None:
    """List every pooling site: path, geometry, shapes."""
    from poolswap.load import checkpoint_of
    from poolswap.manifest import read_manifest
    from poolswap.surgery.sites import LOOKS_FOR, find_pools

    net, spec = architecture.load(model)
    own = checkpoint_of(model)
    swaps = read_manifest(own).plan.swaps if own else ()
    sites = find_pools(net, spec.input_size, example=example_of(example), include=[include] if include else [])
    output.document(
        {
            "model": spec.reference,
            "input_size": spec.input_size,
            "sites": [site.describe() for site in sites],
            "replaced": swaps,
        }
    )
    if spec.note:
        output.note(spec.note)
    title = f"{spec.reference}, input {'x'.join(map(str, spec.input_size))}"
    output.table(title, COLUMNS, [row(s) for s in sites], spare=SPARE)
    output.note(count(sites))
    if swaps:
        output.line("")
        done = [[swap.site.path, pooling(swap.site), operator(swap)] for swap in swaps]
        output.table(f"{len(swaps)} replaced already", ["path", "before", "after"], done)
    output.note(f"looked for: {LOOKS_FOR}")


COLUMNS = ["#", "path", "kind", "pooling", "scope", "input", "output", "replaceable"]
SPARE = ["output", "input", "kind"]


def pooling(site: PoolSite) -> str:
    """`max 3x3/2 p1`."""
    return f"{site.op} {site.call or '?'}"


def operator(swap: Swap) -> str:
    """`soft:beta=2.0`, as it is typed, and the windows where they change."""
    from poolswap.operators.describe import typed

    return typed(swap.to, swap.options) + (f" {swap.geometry}" if swap.geometry else "")


def row(site: PoolSite) -> list[object]:
    """One line of the table: what a person picks sites by."""
    why = "yes" if site.replaceable else f"no: {site.reason}"
    if site.aside:
        why = f"if named: {site.aside}"
    if site.only:
        why += f" (only in {site.only} mode)"
    if site.aliases:
        why += f" (also {', '.join(site.aliases)})"
    shapes = ["x".join(map(str, shape[1:])) for shape in (site.input_shape, site.output_shape)]
    return [site.number, site.path, site.kind, pooling(site), site.scope, *shapes, why]


def count(sites: Sequence[PoolSite]) -> str:
    """The line under the table: how many of what."""
    usual = [site for site in sites if site.only != "train"]
    layers = {kind: sum(site.kind == kind for site in usual) for kind in ("roi", "conv")}
    windows = sum(site.scope == "window" for site in usual) - layers["conv"]
    functional = sum(site.scope == "window" and site.kind == "functional" for site in usual)
    text = f"{windows} window {'site' if windows == 1 else 'sites'}"
    if functional:
        text += f" ({functional} functional)"
    text += f", {len(usual) - windows - sum(layers.values())} global"
    names = {"roi": "pooling of regions", "conv": "strided convolutions"}
    text += "".join(f", {number} {names[kind]}" for kind, number in layers.items() if number)
    if len(usual) < len(sites):
        text += f", {len(sites) - len(usual)} only in train mode (--layers counts the others; name these by # or path)"
    return text
