"""Study -> trials: the control is always there, nothing runs twice, and a changed study runs only what is new."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poolswap.ablate.grid import grid_of, make_grid
from poolswap.ablate.study import Study, parse_counts
from poolswap.errors import InputError, NothingToReplaceError
from poolswap.surgery.sites import find_pools

SIZE = (3, 16, 16)
FIELDS = {"model": "net.py:net", "data": "digits", "weights": "pretrained", "input_size": SIZE}


def net():
    """A Sequential: its paths are numbers, which read like counts."""
    return nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Flatten())


def grid(**fields):
    return make_grid(Study.make({**FIELDS, **fields}), find_pools(net(), SIZE))


def test_the_control_is_there_for_every_adaptation_and_seed():
    cells = grid(counts="2", adapt=["recalibrate", "finetune"], seeds=3).cells
    controls = {(cell.adapt, cell.seed) for cell in cells if cell.layers == 0}
    assert controls == {(adapt, seed) for adapt in ("recalibrate", "finetune") for seed in range(3)}
    assert controls == {(cell.adapt, cell.seed) for cell in cells if cell.layers}


@pytest.mark.parametrize(
    ("order", "paths"),
    [
        ("forward", [("0",), ("0", "2"), ("0", "2", "3")]),
        ("backward", [("3",), ("2", "3"), ("0", "2", "3")]),
        ("single", [("0",), ("2",), ("3",)]),
    ],
)
def test_orders_choose_layers(order, paths):
    cells = grid(order=order, seeds=1).cells
    assert [cell.paths for cell in cells] == [(), *paths]


def test_trials_that_two_orders_share_run_once():
    made = grid(order=["forward", "backward", "single"], seeds=1)
    assert len(made.cells) == 10
    assert len(made.trials) == 7  # the control, all, 0, 2, 3, 0+2, 2+3


def test_nothing_adapted_needs_no_seeds():
    assert len(grid(counts="1", adapt="none", seeds=5).trials) == 2


def test_kind_and_exclude_narrow_the_layers():
    assert [layer.path for layer in grid(op="max").layers] == ["0", "2"]
    assert [layer.path for layer in grid(exclude=["2"]).layers] == ["0", "3"]
    with pytest.raises(NothingToReplaceError):
        grid(op="max", exclude=["0", "2"])


def test_more_seeds_keep_the_trials_that_were_run():
    few, many = (set(grid(adapt="finetune", seeds=n).trials) for n in (2, 3))
    assert few < many


def test_a_recipe_makes_new_trials_only_where_something_is_trained():
    before, after = (grid(adapt=["none", "finetune"], seeds=1, recipe={"epochs": n}) for n in (1, 2))
    same = set(before.trials) & set(after.trials)
    assert {before.trials[key].adapt for key in same} == {"none"}
    assert len(same) == 4


@given(st.integers(1, 9))
def test_shards_have_every_trial_once(of):
    whole = grid(adapt=["none", "finetune"], order=["forward", "single"])
    parts = [whole.shard(n, of) for n in range(1, of + 1)]
    assert sum(map(len, parts)) == len(whole.trials)
    assert {key for part in parts for key in part} == set(whole.trials)


@given(st.integers(1, 20), st.data())
def test_layers_read_as_written(available, data):
    low = data.draw(st.integers(0, available))
    assert parse_counts(f"{low}..all", available) == tuple(range(max(low, 1), available + 1))
    assert parse_counts(f"{low},all", available) == tuple(sorted({low, available} - {0}))


@pytest.mark.parametrize("text", ["", "x", "1..", "..2", "3..1", "7", "-1", "1,,2", "all..1"])
def test_layers_that_do_not_fit_are_errors(text):
    with pytest.raises(InputError, match="counts="):
        parse_counts(text, 5)


@pytest.mark.parametrize("adapt", ["none", "recalibrate", "finetune"])
def test_random_weights_are_only_for_training_from_scratch(adapt):
    with pytest.raises(InputError, match="these are random"):
        grid(weights="random", adapt=adapt)
    assert grid(weights="random", adapt="scratch").trials


def test_unknown_fields_and_operators_are_named():
    with pytest.raises(InputError, match="study's count: ") as caught:
        Study.make({**FIELDS, "count": 1})
    assert "counts" in caught.value.hint
    with pytest.raises(InputError, match="'sotf'"):
        grid(operators="sotf")


def test_operators_in_a_study_are_as_typed_in_a_command():
    assert Study.make({**FIELDS, "operators": "lp:p=3,learn=true,soft"}).operators == ("lp:p=3,learn=true", "soft")
    assert Study.make({**FIELDS, "operators": "all,lp:p=3"}).operators[-1] == "lp:p=3"
    assert {"soft", "max", "blur"} < {*Study.make({**FIELDS, "operators": "all"}).operators}


def test_a_study_survives_its_file(tmp_path):
    study = Study.make({**FIELDS, "seeds": [3, 5], "operators": ["soft", "lp:p=3"], "recipe": {"epochs": 2}})
    (tmp_path / "study.yaml").write_text(study.dumps())
    assert Study.read(tmp_path / "study.yaml") == study


@pytest.mark.parametrize("text", ["- 1", "a: [", ""])
def test_a_file_that_is_no_study_is_an_error(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(InputError, match=r"study\.yaml"):
        Study.read(tmp_path / "study.yaml")


def test_a_changed_model_file_makes_new_trials(tmp_path):
    path = tmp_path / "net.py"
    source = "from torch import nn\ndef net():\n    return nn.Sequential(nn.MaxPool2d(2), nn.Flatten())\n"
    study = Study.make({**FIELDS, "model": f"{path}:net", "weights": "random", "adapt": "scratch"})
    path.write_text(source)
    before = set(grid_of(study).trials)
    assert before == set(grid_of(study).trials)
    path.write_text(source + "# changed\n")
    assert not before & set(grid_of(study).trials)


def test_one_base_is_no_two_seeds():
    with pytest.raises(InputError, match="given for two seeds"):
        Study.make({**FIELDS, "weights": ["a.pt", "b.pt", "a.pt"], "seeds": 3})


@pytest.mark.parametrize(
    ("wrong", "says", "hint"),
    [
        ({"seeds": "five"}, "seeds: must be a list", "seeds: [0, 1, 2, 3, 4]"),
        ({"seeds": -1}, "seeds: is empty", "seeds: [0, 1, 2, 3, 4]"),
        ({"operators": {"soft": 1}}, "operators: must be a list", 'operators: ["soft"]'),
        ({"transform": 3}, "transform: must be fields with values", "model: resnet18"),
        ({"margin": float("nan")}, "margin: must be a finite number", "margin: 0.5"),
        ({"until": "width < 2"}, "until: must be fields with values", 'until: {"width": 2, "first": 5, "most": 20}'),
    ],
)
def test_a_wrong_field_is_told_in_words_with_an_example_of_that_field(wrong, says, hint):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        Study.make({**FIELDS, **wrong})
    assert caught.value.hint == f"write for example {hint}"


def test_counts_that_run_backwards_are_told_so():
    with pytest.raises(InputError, match=r"'2\.\.1' runs backwards"):
        grid(counts="2..1")
