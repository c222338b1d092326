"""docs/operators.md says what the classes say."""

from pathlib import Path

from cpu_report import between_markers
from operators_report import PAGE, costs_table, operators_table

from poolswap.operators import OPERATORS

ROOT = Path(__file__).parents[2]


def test_the_table_of_operators_is_made_from_their_classes():
    """Where it is not: python benchmarks/operators_report.py --no-costs."""
    found = between_markers("operators").search(PAGE.read_text())
    assert found[0].split("\n", 1)[1].rsplit("\n", 1)[0] == operators_table()


def test_every_operator_of_windows_has_its_cost():
    page = between_markers("costs").search(PAGE.read_text())[0]
    assert all(f"| `{name}` |" in page for name, operator in OPERATORS.items() if operator.window)
    assert costs_table(2).count("\n| `") == sum(operator.window is not None for operator in OPERATORS.values())
