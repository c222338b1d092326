"""`poolswap operators`: the pooling operators, their options, and what each costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from poolswap.cli.output import Output

if TYPE_CHECKING:
    from poolswap.errors import InputError
    from poolswap.operators import Operator
    from poolswap.operators.cost import Cost

EXAMPLES = ("poolswap operators", "poolswap operators soft lp --no-cost")

_COSTS = ["parameters", "forward", "training"]


def operators(
    output: Output,
    name: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Only these; pool.py:MyPool too.")] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Measure what each costs on this machine.")] = True,
) -> None:
    """List the pooling operators: formula, options, cost."""
    from poolswap.errors import InputError
    from poolswap.operators import OPERATORS, Operator
    from poolswap.operators.cost import HEAD, STEM, measure_costs
    from poolswap.operators.registry import installed_operators, load_operator
    from poolswap.ops.backend import select

    chosen: dict[str, Operator | InputError] = {**OPERATORS, **installed_operators()}
    if name:
        chosen = {operator.name: operator for operator in map(load_operator, name)}
    good = {key: found for key, found in chosen.items() if isinstance(found, Operator)}
    errors = {key: found for key, found in chosen.items() if isinstance(found, InputError)}
    costs: dict[str, Cost | InputError] = {}
    if cost:
        costs = measure_costs((operator for operator in good.values() if operator.window), STEM)
        costs |= measure_costs((operator for operator in good.values() if not operator.window), HEAD)
    errors |= {key: found for key, found in costs.items() if isinstance(found, InputError)}
    measured = {key: found for key, found in costs.items() if not isinstance(found, InputError)}
    backend = select("cpu").name
    output.document(
        {
            "cost_of": {"windows": str(STEM), "heads": str(HEAD), "device": "cpu", "soft_backend": backend}
            if cost
            else None,
            "operators": [
                {**_described(key, good.get(key)), "cost": measured.get(key), "error": _message(errors.get(key))}
                for key in chosen
            ],
        }
    )
    if cost:
        output.note(f"time as a multiple of max pooling's: {STEM}, CPU, soft by the {backend} backend")
        output.note(f"of heads alone, of average pooling's: {HEAD}")
    columns = ["operator", "replaces", "formula", "options", *_COSTS * cost, "paper"]
    rows = [_row(key, good.get(key), errors.get(key), measured.get(key), cost) for key in chosen]
    output.table(None, columns, rows, spare=["paper", *["parameters", "replaces"] * cost])
    output.hint("poolswap convert MODEL --to lp:p=3,learn=true")


def _described(name: str, operator: Operator | None) -> dict[str, Any]:
    from poolswap.operators.describe import option_types, replaces

    if operator is None:
        return {"name": name}
    return {
        "name": name,
        "replaces": replaces(operator),
        "formula": operator.formula,
        "paper": operator.paper,
        "options": option_types(operator),
        "draws": operator.draws,
    }


def _row(
    name: str, operator: Operator | None, error: InputError | None, measured: Cost | None, cost: bool
) -> list[object]:
    from poolswap.operators.describe import replaces, usage

    costs = ["", "", ""]
    if measured:
        costs = [str(measured.parameters), f"{measured.forward:.1f}x", f"{measured.training:.1f}x"]
    kinds, options, paper = (
        (", ".join(replaces(operator)), usage(operator), operator.paper) if operator else ("", "", "")
    )
    formula = _message(error) or (operator.formula if operator else "")
    return [name, kinds, formula, options, *costs * cost, paper]


def _message(error: InputError | None) -> str | None:
    return error.message if error else None
