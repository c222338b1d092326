"""--check: what it means, and that it is never evaluated as code."""

import pytest

from poolswap.ablate.check import parse_check
from poolswap.cli.speech import to_flags
from poolswap.errors import InputError

ROWS = [
    {"layers": 1, "adapt": "none", "top1_delta": -3.0},
    {"layers": 1, "adapt": "finetune", "top1_delta": -0.2},
    {"layers": 5, "adapt": "finetune", "top1_delta": None},
]


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        ("top1_delta >= -5", [2]),
        ("top1_delta>=-0.5", [0, 2]),
        ("top1_delta < 1e-3 for layers=1", []),
        ("top1_delta >= -0.5 for adapt=finetune, layers=1", []),
        ("layers == 1 for adapt=none", []),
        ("layers <= 4.", [2]),
    ],
)
def test_rows_that_do_not_hold(text, failing):
    assert [row for row, _ in parse_check(text).failures(ROWS)] == [ROWS[n] for n in failing]


def test_a_variant_is_named_by_an_operator_with_several_options():
    """As in --confirm: a comma of the operator's is none of the condition's."""
    rows = [{"to": to, "layers": 1, "top1_low": -1.0} for to in ("soft:beta=learn,start=2", "soft")]
    check = parse_check("top1_low >= 0 for to=soft:beta=learn,start=2, layers=1")
    assert check.only == (("to", "soft:beta=learn,start=2"), ("layers", "1"))
    assert check.failures(rows) == [(rows[0], "top1_low = -1.0")]


def test_a_row_without_the_number_does_not_hold():
    assert parse_check("top1_delta > -100").failures(ROWS[2:]) == [(ROWS[2], "top1_delta = None")]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"missing": 2}, "2 of its trials have no result"),
        ({"missing": 2, "incomplete": True}, None),  # by successive halving, on purpose
        ({"top1_verdict": "one seed: no verdict"}, "one seed: no verdict"),
        ({"top1_verdict": "open"}, None),
    ],
)
def test_what_is_not_shown_does_not_hold(row, why):
    row = {"layers": 1, "missing": 0, "top1_low": 0.0, **row}
    assert parse_check("top1_low >= -.5").failures([row]) == ([(row, why)] if why else [])
    assert parse_check("layers == 1").failures([row]) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "top1",
        "top1 >=",
        "top1 >= x",
        "top1 => 1",
        "__import__('os').system('id') > 0",
        "a > 1 or 1 > 0",
        "a > 1 for b",
    ],
)
def test_anything_else_is_an_error(text):
    with pytest.raises(InputError, match="check"):
        parse_check(text)


def test_unknown_columns_and_rows_are_named():
    with pytest.raises(InputError, match="no column 'top2'") as caught:
        parse_check("top2 > 1").failures(ROWS)
    assert "top1_delta" in caught.value.hint
    with pytest.raises(InputError, match="about no row"):
        parse_check("layers > 1 for adapt=scratch").failures(ROWS)
    with pytest.raises(InputError, match="about no row"):
        parse_check("layers > 1").failures([])


def test_the_command_line_keeps_a_condition_as_it_is_typed():
    with pytest.raises(InputError) as caught:
        parse_check("top1")
    example = "--check 'forward_ratio < 1.2 for adapt=finetune, layers=5'"
    assert to_flags(caught.value.hint) == f"write for example {example}"
