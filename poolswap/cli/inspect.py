"""`poolswap inspect`: every pooling site of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolswap.cli.options import (
    ExampleOption,
    InChansOption,
    InputSizeOption,
    ModelArgOption,
    ModelArgument,
    NumClassesOption,
    TrustCodeOption,
    example_of,
    load,
)
from poolswap.cli.output import JsonOption, Output, QuietOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolswap.surgery.sites import PoolSite


def inspect(
    model: ModelArgument,
    num_classes: NumClassesOption = None,
    in_chans: InChansOption = None,
    input_size: InputSizeOption = None,
    model_args: ModelArgOption = None,
    example: ExampleOption = None,
    trust_code: TrustCodeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List every pooling site: path, kind, geometry, shapes, and why not replaceable."""
    from poolswap.surgery.sites import find_pools

    output = Output(json=as_json, quiet=quiet)
    net, spec = load(
        model,
        num_classes=num_classes,
        in_chans=in_chans,
        input_size=input_size,
        model_args=model_args,
        trust_code=trust_code,
    )
    sites = find_pools(net, spec.input_size, example=example_of(example))
    output.json({"model": spec.reference, "input_size": spec.input_size, "sites": [site.describe() for site in sites]})
    if spec.note:
        output.note(spec.note)
    output.table(f"{spec.reference}, input {'x'.join(map(str, spec.input_size))}", COLUMNS, [row(s) for s in sites])
    output.note(count(sites))


COLUMNS = ["#", "path", "kind", "pooling", "scope", "input", "output", "replaceable"]


def row(site: PoolSite) -> list[object]:
    """One line of the table: what a person picks sites by."""
    why = "yes" if site.replaceable else f"no: {site.reason}"
    if site.only:
        why += f" (only in {site.only} mode)"
    if site.aliases:
        why += f" (also {', '.join(site.aliases)})"
    shapes = ["x".join(map(str, shape[1:])) for shape in (site.input_shape, site.output_shape)]
    return [site.number, site.path, site.kind, f"{site.op} {site.call or '?'}", site.scope, *shapes, why]


def count(sites: Sequence[PoolSite]) -> str:
    """The line under the table: how many of what."""
    usual = [site for site in sites if site.only != "train"]
    windows = sum(site.scope == "window" for site in usual)
    functional = sum(site.scope == "window" and site.kind == "functional" for site in usual)
    text = f"{windows} window {'site' if windows == 1 else 'sites'}"
    if functional:
        text += f" ({functional} functional)"
    text += f", {len(usual) - windows} global"
    if len(usual) < len(sites):
        text += f", {len(sites) - len(usual)} only in train mode (--layers counts the others; name these by # or path)"
    return text
