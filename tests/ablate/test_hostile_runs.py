"""A runs folder that was damaged or made up is one line of error, or a result that does not count."""

import json
from base64 import b64encode

import pytest
from ablation_runs import IMAGES, answers

from poolswap.ablate.record import Record
from poolswap.ablate.report import write_report
from poolswap.ablate.report.summary import summarise
from poolswap.cli.app import main

RECORD = Record.of([answers(1)]).model_dump()
RESULTS = {
    "costs that are none": {"costs": [3]},
    "a cost of no time": {"costs": [{"direction": "forward", "milliseconds": 0}]},
    "bits that are no base64": {"record": {**RECORD, "correct": "\u00fc" * 8}},
    "too few bits": {"record": {**RECORD, "correct": "/w=="}},
    "too many images": {"record": {**RECORD, "images": 2**60}},
    "no images": {"record": {**RECORD, "images": 0}},
    "losses that are no numbers": {"record": {**RECORD, "loss": b64encode(b"\xff" * 4 * IMAGES).decode()}},
    "no record": {"record": None},
    "accuracy that is no number": {"top1": float("nan")},
    "accuracy of 10**6 %": {"top1": 1e6},
    "an infinite loss": {"loss": float("inf")},
    "parameters of 1e300": {"parameters": 1e300},
    "another type": {"sites": 3},
    "accuracy of other answers": {"top1": 1.0},
    "another trial's": {"key": "0" * 16},
    "other images": {"top1": 75.0, "record": Record.of([answers(1, images=4)]).model_dump()},
}
GRIDS = {
    "a cell without a trial": lambda grid: grid["trials"].clear(),
    "no control": lambda grid: grid["cells"].pop(0),
    "a path out of the folder": lambda grid: grid["trials"].update({"../../../etc": grid["trials"].popitem()[1]}),
    "a layer without a size": lambda grid: grid["layers"][0].update(size=[4, 0, 0]),
    "a negative layer": lambda grid: grid["layers"][0].update(size=[4, -8, -8]),
    "an alone layer without a path": lambda grid: grid["cells"][-1].update(paths=[]),
    "another type": lambda grid: grid.update(cells=3),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(make_run, capsys, name):
    folder, grid = make_run()
    path = folder.trial(next(iter(grid.trials))) / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **RESULTS[name]}))
    code = main(["report", str(folder.path)])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert (code, len(errors)) == ((2, 1) if name == "other images" else (0, 0))
    if not code:  # the trial counts as one that has not run
        summary = summarise([folder])
        assert summary.finished == len(grid.trials) - 1
        assert str(path) in summary.problems[0].error  # and the report says which


@pytest.mark.parametrize("name", GRIDS)
def test_grids(make_run, capsys, name):
    folder, _ = make_run()
    path = folder.path / "grid.json"
    document = json.loads(path.read_text())
    GRIDS[name](document)
    path.write_text(json.dumps(document))
    code = main(["report", str(folder.path)])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert (code, len(errors)) == (2, 1)
    assert "missing or damaged" in errors[0]


@pytest.mark.parametrize("name", ["$", "$x", "\\frac{", "a_$b^", "<b>&", "%s", "{x}", "\u202e", "é"])
def test_signs_in_names_are_signs_in_figures(make_run, tmp_path, name):
    """A dollar would begin a formula, and half a formula is an error."""
    pytest.importorskip("matplotlib")
    folder, _ = make_run(order=["single", "forward"])
    for path in (folder.path / "grid.json", folder.path / "study.yaml"):
        path.write_text(path.read_text().replace('"soft"', json.dumps(name)))
    for path in (folder.path / "grid.json",):
        document = json.loads(path.read_text())
        document["layers"][0]["path"] = name
        path.write_text(json.dumps(document))
    assert all(path.is_file() for path in write_report(summarise([folder]), tmp_path / "report"))
