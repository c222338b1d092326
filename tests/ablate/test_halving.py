"""Successive halving spends seeds on what may be best, and only complete variants have a verdict."""

import json
from collections import Counter
from pathlib import Path

import pytest
from ablation_runs import ABLATE, made_up
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poolswap.ablate.confirm import confirmation
from poolswap.ablate.grid import make_grid
from poolswap.ablate.halving import _left, check_halving, next_round
from poolswap.ablate.report import summarise
from poolswap.ablate.report.words import headlines
from poolswap.ablate.report.write import markdown, page
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.study import Study
from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.surgery.sites import find_pools

OPERATORS = [f"lp:p={n}" for n in range(1, 13)]
NET = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Flatten())


def whole(**fields):
    base = {"model": "net.py:net", "data": "digits", "adapt": "scratch", "seeds": 5, "operators": OPERATORS}
    study = Study.make({**base, "halving": 2, **fields})
    return study, make_grid(study, find_pools(NET, (3, 16, 16)))


def run(study, grid, gain, failing=(), known=()):
    """(rounds of keys, results by key): `gain(to)` images more are right than in the control."""
    results, rounds, failed = dict(known), [], set()
    while chosen := next_round(study, grid, results.get, failed):
        rounds.append(chosen)
        for key, trial in chosen.items():
            if trial.to in failing:
                failed.add(key)
            else:
                results[key] = made_up(trial, 40 + 3 * trial.seed - (gain(trial.to, trial) if trial.to else 0))
    return rounds, results


def seeds_of(grid, results):
    return Counter((c.to, c.layers, c.adapt) for c in grid.cells if c.layers and c.key in results)


def test_the_best_have_all_seeds_and_the_worse_the_fewer():
    study, grid = whole(counts="all")
    rounds, results = run(study, grid, lambda to, trial: int(to.removeprefix("lp:p=")))
    seeds = seeds_of(grid, results)
    assert {int(to.removeprefix("lp:p=")): n for (to, _, _), n in seeds.items()} == {
        **dict.fromkeys(range(1, 6), 1),
        **dict.fromkeys(range(6, 9), 2),
        **dict.fromkeys(range(9, 11), 4),
        **dict.fromkeys(range(11, 13), 5),
    }
    assert [len(chosen) for chosen in rounds] == [13, 8, 10, 3]
    assert sum(cell.key in results for cell in grid.cells if not cell.layers) == 5


def test_a_run_that_was_ended_goes_on_from_its_results_alone():
    study, grid = whole(counts="all")

    def gain(to, trial):
        return int(to.removeprefix("lp:p=")) + trial.seed % 2

    _, results = run(study, grid, gain)
    some = dict(list(results.items())[:17])
    assert run(study, grid, gain, known=some)[1].keys() == results.keys()


def test_each_adaptation_keeps_its_own_best_and_what_is_not_trained_is_measured_whole():
    study, grid = whole(counts="all", adapt=["none", "finetune"], weights="pretrained")
    _, results = run(
        study, grid, lambda to, trial: int(to.removeprefix("lp:p=")) * (-1 if trial.adapt == "none" else 1)
    )
    seeds = seeds_of(grid, results)
    assert {adapt: sum(n == 5 for (*_, a), n in seeds.items() if a == adapt) for adapt in study.adapt}["finetune"] == 2
    assert all(seeds[to, 2, "none"] == 1 for to in OPERATORS)


def test_a_variant_with_two_places_in_the_grid_is_one():
    study, grid = whole(counts="all", order=["forward", "backward"])
    _, results = run(study, grid, lambda to, trial: int(to.removeprefix("lp:p=")))
    complete = {cell.key for cell in grid.cells if cell.layers and cell.key in results and cell.seed == 4}
    assert {grid.trials[key].to for key in complete} == {"lp:p=11", "lp:p=12"}


def test_a_variant_that_fails_is_the_first_to_go():
    study, grid = whole(counts="all")
    _, results = run(study, grid, lambda to, trial: int(to.removeprefix("lp:p=")), failing=["lp:p=12"])
    seeds = seeds_of(grid, results)
    assert seeds["lp:p=12", 2, "scratch"] == 0
    assert [to for (to, *_), n in seeds.items() if n == 5] == ["lp:p=10", "lp:p=11"]


@given(st.integers(0, 2000), st.integers(1, 50), st.integers(1, 6))
def test_fewer_and_fewer_go_on_and_as_many_as_were_asked_for_are_left(begun, at_last, rounds):
    counts = [_left(begun, at_last, n / rounds) for n in range(rounds + 1)]
    assert counts[0] == begun
    assert counts[-1] == min(begun, at_last)
    assert counts == sorted(counts, reverse=True)


def report(tmp_path, **fields):
    study, grid = whole(counts="all", **fields)
    folder = RunFolder(tmp_path / "run")
    folder.open(study, grid)
    for key, result in run(study, grid, lambda to, trial: int(to.removeprefix("lp:p=")))[1].items():
        folder.trial(key).mkdir(exist_ok=True)
        folder.write_result(key, result)
    return folder, study


def test_only_complete_variants_have_a_verdict_and_intervals_hold_for_all_that_began(tmp_path, monkeypatch):
    """Also under the choice: the wider intervals hold for every variant at once, so for those that were kept."""
    folder, _ = report(tmp_path)
    summary = summarise([folder])
    judged = {row.to: row.top1_compared for row in summary.rows if row.compared}
    assert list(judged) == ["lp:p=11", "lp:p=12"]
    assert summary.family.rows == 12
    incomplete = [row for row in summary.rows if row.incomplete]
    assert len(incomplete) == 10
    assert all(row.columns()["top1_low"] is None for row in incomplete)
    said = {text for _, _, text in headlines(summary)}
    assert "all 2 layers to lp:p=1, trained from scratch: 1 of 5 seeds, and a verdict takes all." in said
    monkeypatch.setattr("poolswap.ablate.report.write.draw", lambda summary, theme: [])
    assert page(summary).count(">no verdict<") == 10
    assert "lp:p=1, forward 2" in markdown(summary, [])


def test_the_choice_is_judged_by_all_seeds_on_test_images(tmp_path, monkeypatch):
    folder, study = report(tmp_path)
    monkeypatch.setattr("poolswap.ablate.confirm.grid_of", lambda study: make_grid(study, find_pools(NET, (3, 16, 16))))
    _, asked, grid = confirmation(folder, study, "to=lp:p=12")
    assert asked.halving is None
    assert len(grid.trials) == 2 * 5


def test_the_command_runs_its_rounds_and_says_how_many_each_has(made_up_engine, capsys):
    ran = made_up_engine(lambda trial: 40 - (int(trial.to.removeprefix("lp:p=")) if trial.to else 0))
    command = [*ABLATE, "--operators", "lp:p=1,lp:p=2,lp:p=3,lp:p=4", "--seeds", "3", "--halving", "1", "-o", "run"]
    assert main([*command, "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pending"]) == 5
    assert main([*command, "--shard", "1/2"]) == 2
    assert "--shard" in capsys.readouterr().err
    assert main(command) == 0
    assert [said.split(", ")[1] for said in capsys.readouterr().err.splitlines() if " to run here" in said] == [
        "5 to run here: about 0 s with 1 at a time",
        "3 to run here: about 0 s with 1 at a time",
        "2 to run here: about 0 s with 1 at a time",
    ]
    assert Counter(trial.to for trial in ran) == {None: 3, "lp:p=4": 3, "lp:p=3": 2, "lp:p=2": 1, "lp:p=1": 1}
    assert main(command) == 0
    assert len(ran) == 10
    assert Study.read(Path("run/study.yaml")).halving == 1


@pytest.mark.parametrize("fields", [{"seeds": 1}, {"until": {"width": 1.0, "first": 5, "most": 20}}])
def test_studies_that_cannot_be_halved(fields):
    with pytest.raises(InputError, match="halving="):
        check_halving(whole(counts="all", **fields)[0])
