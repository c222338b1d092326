"""`poolswap operators`: what `--to` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from poolswap.cli.output import JsonOption, Output, QuietOption

if TYPE_CHECKING:
    from inspect import Parameter


def operators(
    name: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Only these; pool.py:MyPool too.")] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Measure what each costs on this machine.")] = True,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the pooling operators: formula, options, and cost relative to max pooling on this machine."""
    from poolswap.operators.cost import SHAPE, STEM, measure_costs
    from poolswap.operators.registry import all_operators, load_operator
    from poolswap.ops.backend import select

    output = Output(json=as_json, quiet=quiet)
    chosen = [load_operator(text) for text in name] if name else list(all_operators().values())
    costs = measure_costs([op for op in chosen if op.window]) if cost else {}
    measured_on = {"geometry": str(STEM), "shape": SHAPE, "device": "cpu", "soft_backend": select("cpu").name}
    output.json(
        {
            "cost_of": measured_on if cost else None,
            "operators": [
                {
                    "name": op.name,
                    "summary": op.summary,
                    "formula": op.formula,
                    "paper": op.paper,
                    "options": {key: _option(parameter) for key, parameter in op.options.items()},
                    "random": op.random,
                    "takes_window": op.window is not None,
                    "takes_head": op.head is not None,
                    "cost": costs.get(op.name),
                }
                for op in chosen
            ],
        }
    )
    columns = ["operator", "formula", "options", "paper"]
    rows: list[list[object]] = [[op.name, op.formula or op.summary, _options(op.options), op.paper] for op in chosen]
    if cost:
        columns[3:3] = ["parameters", "forward", "training"]
        for row in rows:
            measured = costs.get(str(row[0]))
            times = (f"{measured.forward:.1f}x", f"{measured.training:.1f}x") if measured else ("", "")
            row[3:3] = [measured.parameters if measured else "a new classifier", *times]
        where = f"{STEM} on {'x'.join(map(str, SHAPE))}, CPU, soft by the {measured_on['soft_backend']} backend"
        output.note(f"time as a multiple of max pooling's: {where}")
    output.table(None, columns, rows)
    output.hint("poolswap convert MODEL --to lp:p=3,learn=true")


def _option(parameter: Parameter) -> dict[str, Any]:
    default = None if parameter.default is parameter.empty else parameter.default
    return {"type": _type(parameter.annotation), "default": default}


def _options(parameters: dict[str, Parameter]) -> str:
    """`p=2.0, learn=False`, as they are typed after the colon; without a default, the type."""
    return ", ".join(
        f"{key}={_type(p.annotation) if p.default in (p.empty, None) else _typed(p.default)}"
        for key, p in parameters.items()
    )


def _typed(default: object) -> str:
    return "+".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()


def _type(annotation: Any) -> str:
    """`float`, `int`, `max|avg`: what the option takes."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if arguments := get_args(annotation):
        return "|".join(_type(argument) for argument in arguments if argument is not type(None))
    return getattr(annotation, "__name__", str(annotation))
