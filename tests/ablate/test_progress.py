"""The live table says at once what runs and how long it takes, in terminals of 80 and 120 columns."""

import io

import pytest
from rich.console import Console

from poolswap.ablate.progress import StudyProgress


def shown(progress, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(progress.table())
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_and_says_what_runs_before_anything_ended(make_run, width):
    folder, grid = make_run(operators=["soft", "lp:p=3"], order="single")
    progress = StudyProgress(folder, grid, grid.trials, jobs=2, seconds=600)
    lines = shown(progress, width)
    assert lines[0].rstrip() == f"0 of {len(grid.trials)} trials ended, 0 failed, about 10 min left"
    assert [line.split("  ")[0].strip() for line in lines[-2:]] == [
        "control, none, seed 0",
        "control, finetune, seed 0",
    ]
    for key in list(grid.trials)[:12]:
        progress.add(key, "done")
    lines = shown(progress, width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith(f"12 of {len(grid.trials)} trials ended, 0 failed")
    head = next(line for line in lines if "top-1 (%)" in line)
    assert "time (s)" in head
    assert sum("running" in line for line in lines) == 2
    assert sum(" done " in line for line in lines) == 8


def test_failures_are_counted_and_no_lucky_seed_is_praised(make_run):
    folder, grid = make_run()
    progress = StudyProgress(folder, grid, grid.trials, jobs=1)
    first, second, *_ = grid.trials
    progress.add(first, "done")
    progress.add(second, "failed")
    assert "2 of 12 trials ended, 1 failed" in progress.line()
    assert "best" not in progress.line()
    assert "failed" in progress.last()
