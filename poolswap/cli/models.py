"""`poolswap models`: names, and how many pooling layers each has."""

from __future__ import annotations

from typing import Annotated

import typer

from poolswap.cli.output import Output

EXAMPLES = ("poolswap models resnet", "poolswap models 'torchvision:*' --with-pools")


def models(
    output: Output,
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Part of the name, or a glob: 'resnet*d'.")
    ] = None,
    with_pools: Annotated[bool, typer.Option("--with-pools", help="Only those that have a window to replace.")] = False,
) -> None:
    """List the architectures, and how many pools each has."""
    from poolswap.models.known import known_models, known_versions

    found = [model for model in known_models(pattern) if model.sites or not with_pools]
    pooled = sum(model.sites > 0 for model in found)
    output.document({"versions": known_versions(), "models": found})
    output.table(None, ["model", "window sites", "functional"], [[m.name, m.sites, m.functional] for m in found])
    output.note(f"{len(found)} architectures of {known_versions()}, {pooled} with window pooling")
