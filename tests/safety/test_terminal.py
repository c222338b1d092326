"""What a file calls things is printed, and never obeyed by the terminal."""

import sys
import unicodedata

import pytest
from forged import forged, with_metadata
from rich.console import Console

from poolswap.ablate.grid import Cell, Grid
from poolswap.ablate.progress import StudyProgress
from poolswap.cli.app import main
from poolswap.cli.output import Output, error
from poolswap.errors import visible

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\nerror: b\u202ec\u2066d\x7f"
NAMES = {
    "a site": ("plan", "swaps", 0, "site", "path"),
    "an operator": ("plan", "swaps", 0, "to"),
    "a model": ("model", "name"),
    "the data it was trained on": ("model", "weights", "trained_on"),
    "the origin of weights": ("model", "weights", "origin"),
    "a note": ("model", "note"),
}


def obeyed(text):
    return [sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf") and sign != "\n"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_names_in_a_checkpoint(saved, tmp_path, capsys, command, name):
    main([command, str(with_metadata(saved[0], tmp_path, forged(*NAMES[name], value=EVIL)))])
    printed = capsys.readouterr()
    assert obeyed(printed.out + printed.err) == []
    assert "error: b" not in printed.err.splitlines()


@pytest.mark.parametrize("name", [EVIL, "[/x]", "[bold]", "[link=http://x]y"])
def test_names_where_there_is_a_terminal(monkeypatch, capsys, name):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    with Output().progress(name, 2) as advance:
        advance(2)
    Output().table(name, ["a"], [[name]])
    error(name, name)
    Output().line(name)
    printed = capsys.readouterr()
    assert obeyed(printed.out) == []
    assert visible(name) in printed.err
    cell = Cell(layers=1, order="single", to=name, adapt="none", seed=0, paths=(name,), key="0" * 16)
    control = Cell(layers=0, order=None, to=None, adapt="none", seed=0, paths=(), key="0" * 16)
    progress = StudyProgress(None, Grid.model_construct(layers=(), cells=(cell, control), trials={}), {}, 1)
    progress.add("0" * 16, "failed")
    console = Console(width=400, color_system=None)
    with console.capture() as shown:
        console.print(progress.table())
    assert obeyed(shown.get()) == []
    assert visible(name) in shown.get()
