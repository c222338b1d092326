"""The whole search over made-up trials of known effects: what it measures, chooses, takes out again, and claims."""

import json
import sys

import pytest
import yaml
from ablate.ablation_runs import IMAGES, costs, made_up

from poolswap.ablate import grid
from poolswap.ablate.mix import is_mix, parse_mix
from poolswap.ablate.runs import Failure, RunFolder
from poolswap.ablate.study import Study
from poolswap.cli.app import main
from poolswap.errors import CheckError, InputError
from poolswap.search import Budget, search

FIRST, SECOND, THIRD = "maxpool", "layer2.0.downsample.0", "layer3.0.downsample.0"
POINT = 100 / IMAGES
WRONG = 40  # of the control


def study(**fields):
    base = {"model": "test_resnet", "data": "digits", "input_size": (3, 16, 16), "adapt": "scratch", "seeds": 3}
    return Study.make({**base, "operators": ["soft", "lp"], "exclude": "layer4*", **fields})


def made(effects, *, together=0, fail=lambda trial: False, ratio=None):
    """An engine whose trials get right as many images more as their replacements add up to; and what it ran.

    `ratio` is the time of all variants, to the control's.
    """
    ran = []

    def engine(folder, trials):
        for key, trial in trials.items():
            ran.append(trial)
            if fail(trial):
                folder.write_failure(key, Failure(error="no memory", traceback=""))
                yield key, "failed"
                continue
            chosen = parse_mix(trial.to or "") if is_mix(trial.to or "") else dict.fromkeys(trial.paths, trial.to)
            better = sum(effects.get(pair, 0) for pair in chosen.items()) + (together if len(chosen) > 1 else 0)
            with folder.claim(key, trial):
                result = made_up(trial, WRONG + trial.seed - better)
                timed = {"costs": costs(ratio)} if ratio and trial.paths else {}
                folder.write_result(key, result.model_copy(update=timed))
            yield key, "done"

    return engine, ran


def test_the_best_operators_that_fit_are_chosen_measured_together_and_judged_on_test_images(tmp_path):
    effects = {(FIRST, "soft"): 6, (FIRST, "lp"): 9, (SECOND, "soft"): 3, (SECOND, "lp"): -2, (THIRD, "soft"): -30}
    engine, ran = made(effects)
    found = search(tmp_path / "run", study(), Budget(max_drop=0.5), engine)
    assert {(one.path, one.to) for one in found.chosen} == {(FIRST, "lp"), (SECOND, "soft")}
    values = {(one.path, one.to): one.value for one in found.candidates}
    assert values[FIRST, "soft"] == pytest.approx(6 * POINT)
    assert len(values) == 6
    assert found.val.top1.mean == found.test.top1.mean == pytest.approx(12 * POINT)
    assert found.holds
    assert found.gains
    assert {swap.site.path: swap.to for swap in found.plan.swaps} == {FIRST: "lp", SECOND: "soft"}
    assert {trial.split for trial in ran} == {"val", "test"}
    judged = [trial for trial in ran if trial.split == "test"]
    assert len(judged) == 2 * 3  # the choice and its control, seed by seed

    again, more = made(effects)
    assert search(tmp_path / "run", study(), Budget(max_drop=0.5), again) == found
    assert more == []  # everything was there


def test_a_combination_that_does_not_add_up_loses_its_least_valuable_site(tmp_path):
    engine, _ = made({(FIRST, "soft"): 6, (SECOND, "soft"): 3}, together=-20)
    found = search(tmp_path / "run", study(operators=["soft"]), Budget(max_drop=0.5), engine)
    assert [(one.path, one.to) for one in found.chosen] == [(FIRST, "soft")]
    assert [one.path for one in found.dropped] == [SECOND]
    assert found.val.seeds == found.test.seeds == 3  # one site is measured already: its trials are not counted twice


def test_where_nothing_gains_there_is_nothing_to_find_and_the_test_images_stay_unseen(tmp_path):
    engine, ran = made({(FIRST, "soft"): -3})
    found = search(tmp_path / "run", study(), Budget(max_drop=5), engine)
    assert found.chosen == ()
    assert found.plan is None
    assert not found.holds
    assert {trial.split for trial in ran} == {"val"}


def test_a_gain_by_chance_is_not_claimed(tmp_path):
    """One image of 203 more, in every seed: chosen, but neither a gain nor the absence of a loss is shown."""
    engine, _ = made({(FIRST, "soft"): 1})
    found = search(tmp_path / "run", study(operators=["soft"]), Budget(max_drop=0), engine)
    assert found.chosen
    assert not found.gains
    assert not found.holds


def test_a_budget_of_time_excludes_what_costs_more(tmp_path):
    """Made-up trials take 1.1 times the time for each replaced layer."""
    effects = {(FIRST, "soft"): 6, (SECOND, "soft"): 3}
    engine, _ = made(effects)
    found = search(tmp_path / "a", study(operators=["soft"]), Budget(max_drop=1, latency=1.15), engine)
    assert [one.path for one in found.chosen] == [FIRST]
    found = search(tmp_path / "b", study(operators=["soft"]), Budget(max_drop=1, latency=1.05), engine)
    assert found.chosen == ()


def test_a_trial_that_fails_costs_its_candidate_and_a_control_that_fails_the_search(tmp_path):
    engine, _ = made({(FIRST, "soft"): 6}, fail=lambda trial: trial.to == "lp")
    found = search(tmp_path / "a", study(), Budget(max_drop=1), engine)
    assert len(found.candidates) == 3
    assert found.failed[f"{FIRST}=lp"] == "no memory"
    engine, _ = made({}, fail=lambda trial: trial.to is None)
    with pytest.raises(CheckError, match="the control failed: no memory"):
        search(tmp_path / "b", study(), Budget(max_drop=1), engine)


def test_the_test_images_judge_one_choice(tmp_path):
    engine, _ = made({(FIRST, "soft"): 6, (FIRST, "lp"): 4})
    search(tmp_path / "run", study(operators=["lp"]), Budget(max_drop=1), engine)
    with pytest.raises(InputError, match="have judged lp, 1 layers, scratch already"):
        search(tmp_path / "run", study(operators=["soft"]), Budget(max_drop=1), engine)


@pytest.mark.parametrize(("ratio", "shown"), [(0.9, True), (0.95, False)])
def test_a_saving_of_time_is_claimed_beyond_the_range_of_its_rounds_only(tmp_path, ratio, shown):
    """Made-up rounds range 0.05 to either side, and the control is 0.01 from itself."""
    engine, _ = made({}, ratio=ratio)
    only = study(operators=["soft"], exclude=["layer*"])
    found = search(tmp_path / "run", only, Budget(max_drop=1), engine, goal="latency")
    assert [one.path for one in found.chosen] == [FIRST]
    assert found.test.value == pytest.approx((1 - ratio, 0.94 - ratio, 1.06 - ratio))
    assert found.gains == shown


def test_the_model_is_built_and_the_images_are_digested_once_a_part_of_the_data(tmp_path, monkeypatch):
    seen = []
    for name in ("sites_of", "contents_of"):
        real = getattr(grid, name)
        monkeypatch.setattr(
            sys.modules[search.__module__],
            name,
            lambda study, name=name, real=real: seen.append((name, study.split)) or real(study),
        )
    engine, _ = made({(FIRST, "soft"): 6, (SECOND, "soft"): 3}, together=-20)
    assert search(tmp_path / "run", study(operators=["soft"]), Budget(max_drop=1), engine).dropped
    assert seen == [("sites_of", "val"), ("contents_of", "val"), ("contents_of", "test")]


def test_what_is_there_already_is_not_tried(tmp_path):
    engine, _ = made({})
    found = search(tmp_path / "run", study(operators=["max", "soft"]), Budget(max_drop=0.5), engine)
    assert {(one.path, one.to) for one in found.candidates if one.path == FIRST} == {(FIRST, "soft")}


def test_a_search_adapts_in_one_way(tmp_path):
    with pytest.raises(InputError, match="adapts in one way"):
        search(tmp_path, study(adapt=["scratch", "finetune"]), Budget(max_drop=1), made({})[0])


def test_the_command_writes_a_plan_and_says_what_it_claims(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["search", "test_resnet", "--data", "digits", "--input-size", "3,16,16", "--adapt", "scratch"]
    command += ["--to", "soft", "--exclude", "layer4*", "--seeds", "3", "--json", "-o", "run"]

    def run(effects, *more):
        monkeypatch.setattr("poolswap.cli.ablate.Execution.start", lambda execution: made(effects)[0])
        code = main([*command, *more])
        return code, capsys.readouterr()

    code, said = run({(FIRST, "soft"): 12})
    assert code == 0
    found = json.loads(said.out)
    assert found["holds"]
    assert found["gains"]
    assert yaml.safe_load((tmp_path / "run/plan.yaml").read_text())["swaps"][0]["site"]["path"] == FIRST
    assert "poolswap convert test_resnet --input-size 3,16,16 --plan run/plan.yaml" in said.err
    code, said = run({(FIRST, "soft"): 1}, "-o", "chance", "--max-drop", "0")
    assert code == 1
    assert "do not exclude a loss" in said.err
    code, said = run({}, "-o", "nothing")
    assert code == 5
    assert not (tmp_path / "nothing/plan.yaml").exists()
    assert RunFolder(tmp_path / "nothing").grid().layers
    code, said = run({}, "--shard", "1/2")
    assert code == 2


@pytest.mark.parametrize("limit", [["--latency", "0"], ["--latency", "nan"], ["--params", "-1"], ["--max-drop", "101"]])
def test_a_budget_that_is_none_is_refused_before_anything_begins(limit, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", "test_resnet", "--data", "digits", "--adapt", "scratch", *limit]) == 2
    said = capsys.readouterr().err
    assert "the budget's" in said
    assert "--max-drop 0.3" in said
    assert not list(tmp_path.iterdir())
