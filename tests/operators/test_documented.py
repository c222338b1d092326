"""docs/operators.md says what the classes say."""

import pytest
from cpu_report import between_markers
from operators_report import PAGE, TABLES, costs_table, operators_table


def test_the_table_of_operators_is_made_from_their_classes():
    """Where it is not: python benchmarks/operators_report.py --no-costs."""
    found = between_markers("operators").search(PAGE.read_text())
    assert found[0].split("\n", 1)[1].rsplit("\n", 1)[0] == operators_table()


@pytest.mark.parametrize(("name", "place", "operators"), TABLES)
def test_every_operator_has_its_cost(name, place, operators):
    page = between_markers(name).search(PAGE.read_text())[0]
    assert all(f"| `{operator.name}` |" in page for operator in operators)
    assert costs_table(operators, place, 2).count("\n| `") == len(operators)
