"""The tables of docs/operators.md: what each operator is, from its class, and what it costs, measured here.

python benchmarks/operators_report.py [--no-costs] [--rounds N]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from cpu_report import markdown, put_between_markers

from poolswap.bench.environment import environment
from poolswap.nn import HeadSite
from poolswap.operators import OPERATORS
from poolswap.operators.cost import HEAD, STEM, Cost, Place, measure_costs
from poolswap.operators.describe import replaces, usage
from poolswap.operators.operator import Operator

PAGE = Path(__file__).parent.parent / "docs" / "operators.md"
CHANNELS = STEM.site.channels
TABLES = (
    ("costs", STEM, [operator for operator in OPERATORS.values() if operator.window]),
    ("head-costs", HEAD, [operator for operator in OPERATORS.values() if operator.head]),
)


def operators_table() -> str:
    """One line an operator, as `poolswap operators` has it; parameters are those of a 3x3 window on 64 channels."""
    lines = [
        [
            f"`{name}`",
            ", ".join(replaces(operator)),
            operator.formula.replace("|", "\\|"),
            f"`{usage(operator)}`".replace("|", "\\|") if operator.options else "",
            str(parameters(operator)),
            operator.paper,
        ]
        for name, operator in OPERATORS.items()
    ]
    return markdown(["name", "replaces", "of a window or map x", "options", "parameters", "paper"], lines)


def parameters(operator: Operator) -> int:
    """Learnable values of one module with the default options."""
    site = STEM.site if operator.window else HeadSite(channels=CHANNELS)
    return sum(parameter.numel() for parameter in operator.make(site).parameters())


def costs_table(operators: Iterable[Operator], place: Place, rounds: int) -> str:
    """Forward in eval mode and forward with backward in train mode, as multiples of the stock layer's."""
    costs = measure_costs(operators, place, rounds=rounds)
    lines = [
        [f"`{name}`", f"{cost.forward:.1f}", f"{cost.training:.1f}"]
        for name, cost in costs.items()
        if isinstance(cost, Cost)
    ]
    where = f"In float32, {place}, medians of {rounds} interleaved rounds"
    return f"{environment()}. {where}.\n\n" + markdown(["name", "forward, eval", "forward and backward, train"], lines)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-costs", action="store_true", help="leave the table of costs as it is")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    put_between_markers(PAGE, "operators", operators_table())
    if not options.no_costs:
        for name, place, operators in TABLES:
            put_between_markers(PAGE, name, costs_table(operators, place, options.rounds))


if __name__ == "__main__":
    main()
