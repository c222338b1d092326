"""What commands print: parsable in a pipe, plain without a terminal, silent when asked."""

import json
import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from terminal import terminal

from poolswap.cli import output as output_module
from poolswap.cli.document import plain
from poolswap.cli.output import Output, error
from poolswap.cli.table import folded_prose, plain_table


def test_a_table_in_a_pipe_is_aligned_and_complete(capsys):
    path = "blocks." * 40 + "pool"
    Output().table("Sites", ["path", "kernel", "drift", "ok"], [(path, 3, 0.123456, True), ("stem", None, 2.0, False)])
    captured = capsys.readouterr()
    assert captured.err == "Sites\n"
    width = len(path)
    assert captured.out.splitlines() == [
        f"{'path':{width}}  kernel   drift  ok",
        f"{path}       3  0.1235  yes",
        f"{'stem':{width}}       -       2  no",
    ]


ROW = ("features.transition1.pool", "module", "max 3x3/2 p1", "64x112x112")
NAMES = ["path", "kind", "pooling", "input"]


@pytest.mark.parametrize(
    ("width", "lines", "hidden"),
    [
        (80, ["path                       kind    pooling       input", "  ".join(ROW)], ""),
        (50, ["path                       kind    pooling", "  ".join(ROW[:3])], "input"),
        (40, ["path                       pooling", f"{ROW[0]}  {ROW[2]}"], "input, kind"),
        (
            34,
            ["path                       pooling", f"{ROW[0]}  max", " " * 27 + "3x3/2", " " * 27 + "p1"],
            "input, kind",
        ),
    ],
)
def test_a_narrow_terminal_drops_columns_before_it_folds_and_folds_a_path_last(monkeypatch, width, lines, hidden):
    screen = terminal(monkeypatch, width)
    monkeypatch.setenv("NO_COLOR", "1")
    Output().table(None, NAMES, [ROW], spare=["input", "kind"])
    said = screen.getvalue().splitlines()
    note = (
        [f"not shown in this narrow a window: {', '.join(n for n in NAMES if n in hidden.split(', '))}"]
        if hidden
        else []
    )
    assert [line.rstrip() for line in said[: len(lines)]] == lines
    assert said[len(lines) :] == [part for text in note for part in folded_prose(text, width).split("\n")]


def test_a_number_keeps_its_unit(monkeypatch):
    screen = terminal(monkeypatch, 20)
    monkeypatch.setenv("NO_COLOR", "1")
    Output().table(None, ["variant", "top-1"], [("soft in all the layers", "88.33 %")])
    assert screen.getvalue().splitlines() == ["variant      top-1", "soft in all  88.33 %", "the layers"]


def test_a_table_without_rows_is_its_header(capsys):
    Output().table(None, ["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n"


cell = st.text(st.characters(codec="ascii", exclude_categories=("C", "Z")), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=5)))
def test_awk_finds_every_cell(rows):
    columns = [f"c{i}" for i in range(len(rows[0]))]
    lines = plain_table([columns, *rows], [i % 2 == 0 for i in range(len(columns))]).splitlines()
    assert [line.split() for line in lines] == [columns, *rows]
    assert all(line == line.rstrip() for line in lines)


def test_line_breaks_and_empty_cells_keep_a_row_on_its_line(capsys):
    Output().table(None, ["a", "b", "c"], [("x\ny", "", None)])
    assert capsys.readouterr().out == "a    b  c\nx y  -  -\n"


def test_colour_on_a_terminal(monkeypatch):
    screen = terminal(monkeypatch)
    error("bad", "do this")
    assert screen.getvalue() == "\033[1;31merror:\033[0m bad\n\033[1;36mhint:\033[0m do this\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "looked for: max, average and adaptive pooling, means and maxima",
            ["looked for: max, average and adaptive", "pooling, means and maxima"],
        ),
        ("all 66.11 points would have been seen 80 % of it", ["all 66.11 points would have been seen", "80 % of it"]),
        ("  layer1.0: 4 times the work, 2 times the time", ["  layer1.0: 4 times the work, 2 times", "the time"]),
        (f"digest {'6b51' * 16}: compare it", ["digest", f"{'6b51' * 16}:", "compare it"]),
        (
            "saved 'my networks/soft.safetensors' now; prove it with: poolswap verify 'my networks/soft.safetensors'",
            [
                "saved 'my networks/soft.safetensors'",
                "now; prove it with:",
                "poolswap verify 'my networks/soft.safetensors'",
            ],
        ),
    ],
)
def test_a_terminal_breaks_notes_between_words_and_never_what_is_copied(monkeypatch, text, lines):
    screen = terminal(monkeypatch)
    Output().note(text)
    assert screen.getvalue().splitlines() == lines


def test_a_folded_error_keeps_its_colour_and_its_command_in_one_line(monkeypatch):
    screen = terminal(monkeypatch)
    error("x.safetensors is not there: error: no such file", "poolswap convert test_resnet -o x.safetensors")
    assert screen.getvalue().splitlines() == [
        "\033[1;31merror:\033[0m x.safetensors is not there:",
        "error: no such file",
        "\033[1;36mhint:\033[0m",
        "poolswap convert test_resnet -o x.safetensors",
    ]


def test_a_pipe_gets_every_note_in_one_line(capsys):
    Output().note("word " * 100 + "end")
    assert capsys.readouterr().err == "word " * 100 + "end\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_when_asked(monkeypatch, variable, value):
    screen = terminal(monkeypatch)
    monkeypatch.setenv(variable, value)
    error("bad", "do this")
    assert screen.getvalue() == "error: bad\nhint: do this\n"


def test_a_terminal_shows_brackets_as_they_are_and_every_character(monkeypatch):
    screen = terminal(monkeypatch)
    Output().table(None, ["shape [NCHW]"], [("[1, 64]",), ("x" * 60,)])
    text = screen.getvalue()
    assert "shape [NCHW]" in text
    assert "[1, 64]" in text
    assert text.count("x") == 60


def test_quiet_leaves_data_and_errors(capsys):
    output = Output(quiet=True)
    output.note("n")
    output.warn("w")
    output.hint("h")
    output.table("title", ["a"], [(1,)])
    with output.progress("p", 2) as advance:
        advance(2)
    error("bad")
    captured = capsys.readouterr()
    assert captured.out == "a\n1\n"
    assert captured.err == "error: bad\n"


def test_progress_away_from_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 31.0, 31.0, 32.0])
    monkeypatch.setattr(output_module.time, "monotonic", lambda: next(clock))
    with Output().progress("images", 100) as advance:
        for _ in range(3):
            advance(10)
    assert capsys.readouterr().err == "images ...\nimages: 20/100\n"


def test_progress_on_a_terminal(monkeypatch):
    screen = terminal(monkeypatch)
    with Output().progress("images", 2) as advance:
        advance(2)
    assert "images" in screen.getvalue()


def test_json_prints_only_with_json_and_only_once(capsys):
    Output().document({"a": 1})
    assert capsys.readouterr().out == ""
    output = Output(json=True)
    output.document({"a": 1})
    with pytest.raises(RuntimeError, match="one JSON document"):
        output.document({"a": 2})
    assert json.loads(capsys.readouterr().out) == {"a": 1}


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    at: Path


class Model(BaseModel):
    sizes: tuple[int, ...]
    colour: Colour
    drift: float


def test_results_become_plain_json():
    document = {
        Colour.RED: Colour.RED,
        "point": Point(math.nan, Path("a/b")),
        "model": Model(sizes=(1, 2), colour=Colour.RED, drift=-math.inf),
        "set": {3, 1},
        "none": None,
    }
    assert json.loads(json.dumps(plain(document), allow_nan=False)) == {
        "red": "red",
        "point": {"x": "nan", "at": "a/b"},
        "model": {"sizes": [1, 2], "colour": "red", "drift": "-inf"},
        "set": [1, 3],
        "none": None,
    }


def test_what_has_no_json_form_is_refused():
    with pytest.raises(TypeError, match="object has no JSON form"):
        plain(object())
