"""Choose on validation images, judge once on test images; and what a trial's numbers depend on is in its key."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from poolswap import find_pools, make_plan, swap_pools
from poolswap.ablate.confirm import confirmation
from poolswap.ablate.estimate import estimate_seconds
from poolswap.ablate.grid import grid_of, make_grid
from poolswap.ablate.report import summarise
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.study import Study
from poolswap.ablate.trial import run_trial
from poolswap.ablate.worker import execute
from poolswap.adapt import evaluate, load_data, make_loader
from poolswap.checkpoint import load_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError

NET = """
from torch import nn


def net(num_classes=2):
    block = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2)
    return nn.Sequential(*block, nn.Flatten(), nn.Linear(4 * 4, num_classes))
"""
FIELDS = {
    "model": "net.py:net",
    "data": "photos",
    "input_size": (3, 8, 8),
    "adapt": "scratch",
    "counts": "1",
    "seeds": 2,
    "batch_size": 8,
    "recipe": {"epochs": 1},
    "transform": {"color_jitter": 0.0},
    "running": {"keep_weights": True},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A network, and bright and dark pictures in three splits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("poolswap.ablate.trial.compare_costs", lambda *models: ())  # not asked here, and slow
    Path("net.py").write_text(NET)
    draw = np.random.default_rng(0)
    for split, count in {"train": 8, "val": 7, "test": 6}.items():
        for kind, low in {"bright": 90, "dark": 60}.items():
            folder = tmp_path / "photos" / split / kind
            folder.mkdir(parents=True)
            for n in range(count):
                Image.fromarray(draw.integers(low, low + 100, (8, 8, 3), np.uint8)).save(folder / f"{n}.png")


def run(name="run", **fields):
    study = Study.make({**FIELDS, **fields})
    folder, grid = RunFolder(name), grid_of(study)
    folder.open(study, grid)
    for key, trial in grid.trials.items():
        if folder.result(key) is None:
            assert execute(folder, key, trial) == "done", folder.failure(key).traceback
    return folder, study, grid


def keys(**fields):
    return list(grid_of(Study.make({**FIELDS, **fields})).trials)


def test_what_was_chosen_is_judged_once_on_test_images():
    folder, study, grid = run(counts="1,2")
    chosen = next(cell for cell in grid.cells if cell.layers == 2)
    kept, manifest = load_checkpoint(folder.trial(chosen.key) / "weights.safetensors", trust_code=True)
    assert manifest.plan.paths == chosen.paths
    final, asked, whole = confirmation(folder, study, "to=soft, layers=2")
    assert (final.path, asked.split, len(whole.trials)) == (folder.path / "test", "test", 4)  # two seeds, two controls
    final.open(asked, whole)
    for key, trial in whole.trials.items():
        assert trial.trained is not None
        assert execute(final, key, trial) == "done", final.failure(key).traceback
    data = load_data("photos", input_size=(3, 8, 8), model=kept, splits=["test"])
    by_hand = evaluate(kept, make_loader(data, "test", 8))
    judged = next(cell for cell in whole.cells if cell.layers == 2)
    assert final.result(judged.key).loss == pytest.approx(by_hand.loss)
    assert by_hand.images == 12
    assert [row.layers for row in summarise([final]).rows] == [0, 2]
    assert confirmation(folder, study, "layers=2")[2].trials.keys() == whole.trials.keys()
    with pytest.raises(InputError, match="have judged soft, 2 layers, scratch already"):
        confirmation(folder, study, "layers=1")


def test_a_network_that_was_not_kept_is_trained_again_to_the_same_numbers():
    losses = []
    for keep in (True, False):
        folder, study, _ = run(f"keep-{keep}", running={"keep_weights": keep}, seeds=1)
        final, asked, whole = confirmation(folder, study, "layers=1")
        final.open(asked, whole)
        for key, trial in whole.trials.items():
            assert execute(final, key, trial) == "done", final.failure(key).traceback
        losses.append([final.result(key).loss for key in whole.trials])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_variant_is_named_by_an_operator_with_several_options():
    to = "soft:beta=learn,start=2.0"
    folder, study, grid = run(counts="1", seeds=1, operators=[to])
    whole = confirmation(folder, study, f"to={grid.cells[-1].to}, layers=1")[2]
    assert [cell.layers for cell in whole.cells] == [0, 1]


def test_what_is_no_choice_is_said(capsys):
    folder, study, grid = run(counts="1,2", seeds=1)
    for which, said in {
        "layers=9": "no variant",
        "to=soft": "is 2 variants",
        "colour=red": "is not one of",
        "layers": "is not one of",
    }.items():
        with pytest.raises(InputError, match=said):
            confirmation(folder, study, which)
    with pytest.raises(InputError, match="is 2 variants") as several:
        confirmation(folder, study, "to=soft")
    confirmation(folder, study, re.search(r"confirm='(.*)'", several.value.hint)[1])  # the hint works as it is given
    assert main(["ablate", "-o", "run", "--confirm", "to=soft, layers=9", "--trust-code"]) == 2
    assert "--confirm 'to=soft, layers=9' is no variant" in capsys.readouterr().err
    with pytest.raises(InputError, match="of another study"):
        confirmation(folder, study.model_copy(update={"batch_size": 4}), "layers=1")
    for cell in grid.cells:
        (folder.trial(cell.key) / "result.json").unlink()
    assert main(["ablate", "-o", "run", "--confirm", "layers=1", "--trust-code"]) == 2
    assert "was not measured in run" in capsys.readouterr().err
    assert main(["ablate", "-o", "run", "--confirm", "layers=1"]) == 2
    assert "--trust-code" in capsys.readouterr().err
    assert main(["ablate", "-o", "run", "--confirm", "layers=1", "--detect", "1", "--trust-code"]) == 2
    assert "leave out one of them" in capsys.readouterr().err
    assert not Path("run/test").exists()


def test_a_key_holds_the_images_the_versions_and_what_is_done_to_them(monkeypatch):
    seen = [keys()]
    assert keys() == seen[0]
    for fields in ({"transform": {"hflip": 0.0}}, {"split": "test"}):
        seen.append(keys(**fields))
    path = Path("photos/val/dark/0.png")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    seen.append(keys())
    Path("photos/val/dark/1.png").unlink()
    seen.append(keys())
    monkeypatch.setattr("poolswap.ablate.grid.versions", lambda: {"torch": "99"})
    seen.append(keys())
    assert len({key for found in seen for key in found}) == sum(map(len, seen))


def test_what_an_adaptation_does_not_look_at_is_not_in_its_key():
    fields = {"weights": "pretrained", "adapt": ["none", "recalibrate"], "running": {}}
    before = keys(**fields)
    Path("photos/train/dark/0.png").unlink()
    after = keys(**fields)
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, False] * 2


def test_images_that_change_during_a_study_fail_the_trial_in_words():
    study = Study.make(FIELDS)
    folder, grid = RunFolder("run"), grid_of(study)
    folder.open(study, grid)
    Path("photos/val/dark/0.png").unlink()
    key, trial = next(iter(grid.trials.items()))
    assert execute(folder, key, trial) == "failed"
    assert "the val images of photos have changed since the study began" in folder.failure(key).error


def test_the_same_images_to_choose_and_to_judge_are_refused():
    Path("photos/train/dark/0.png").rename(Path("photos/train/dark/00.png"))
    for part in ("bright", "dark"):
        for path in Path("photos/test", part).iterdir():
            path.unlink()
        for path in Path("photos/val", part).iterdir():
            (Path("photos/test", part) / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="the val and test images of photos are the same"):
        grid_of(Study.make({**FIELDS, "split": "test"}))


def test_bases_are_a_factor():
    """From one base seeds vary the order of images only; with a base for each seed, what is not adapted varies too."""
    net = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1))
    bases = []
    for n in range(2):
        bases.append(f"{n}.pt")
        torch.save(torch.zeros(n), bases[-1])
    fields = {**FIELDS, "weights": bases, "adapt": ["none", "finetune"], "seeds": [3, 5]}
    grid = make_grid(Study.make(fields), find_pools(net, (3, 8, 8)))
    found = {(cell.adapt, cell.layers, cell.seed): grid.trials[cell.key].weights for cell in grid.cells}
    assert found == {(adapt, n, s): bases[s == 5] for adapt in ("none", "finetune") for n in (0, 1) for s in (3, 5)}
    with pytest.raises(InputError, match="2 weights for 3 seeds"):
        Study.make({**fields, "seeds": 3})
    with pytest.raises(InputError, match="several weights are files"):
        Study.make({**fields, "weights": ["random", "0.pt"]})


def test_sensitivity_is_the_adapted_controls_on_real_images():
    folder, _, grid = run(seeds=1, operators=["avg", "soft"])
    control, *variants = grid.cells
    alone = folder.result(control.key).alone
    assert [(one.path, one.to) for one in alone] == [("3", "avg"), ("4", "avg")]
    assert not any(folder.result(cell.key).alone for cell in variants)
    net, _ = load_checkpoint(folder.trial(control.key) / "weights.safetensors", trust_code=True)
    val = make_loader(load_data("photos", input_size=(3, 8, 8), model=net), "val", 8)
    stock = evaluate(net, val)
    swap_pools(net, make_plan(find_pools(net, (3, 8, 8)), "#2", "avg", input_size=(3, 8, 8)))
    assert alone[1].loss == pytest.approx(evaluate(net, val).loss - stock.loss, abs=1e-6)
    (strip,) = summarise([folder]).strips
    assert strip.kind == "delta"
    assert strip.values == tuple(one.top1 for one in alone)


def test_an_operator_of_ones_own_is_not_tried_on_the_control():
    """It may take the process down with it, and the control must not be lost to that."""
    Path("pool.py").write_text("from poolswap.nn import SoftPool\nclass Mine(SoftPool):\n    pass\n")
    for operators, probed in {("pool.py:Mine", "avg"): "avg", ("pool.py:Mine",): None}.items():
        control = next(iter(grid_of(Study.make({**FIELDS, "operators": operators})).trials.values()))
        assert (control.probe.to if control.probe else None) == probed


def test_costs_are_measured_once_an_architecture():
    cells = grid_of(Study.make({**FIELDS, "counts": "1,2", "seeds": 3}))
    assert [trial.costs for trial in cells.trials.values()] == [True, False, False] * 3


def test_what_an_operator_draws_does_not_depend_on_what_ran_before(tmp_path):
    (_, trial) = grid_of(Study.make({**FIELDS, "operators": "dpp", "seeds": 1, "running": {}})).trials.values()
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(run_trial(trial, tmp_path / str(seed)).loss)
    assert losses[0] == losses[1]


def test_the_estimate_is_measured_as_trials_run(monkeypatch):
    """With the threads that each of the processes gets, and on the study's own images."""
    seen = []
    monkeypatch.setattr("poolswap.ablate.run.processors", lambda: 4)
    monkeypatch.setattr("poolswap.ablate.estimate.processors", lambda: 4)

    def spy(model, inputs):
        seen.append((torch.get_num_threads(), tuple(inputs[0][0].shape)))

    monkeypatch.setattr("poolswap.ablate.estimate.forward_backward", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        trials = grid_of(Study.make(FIELDS)).trials
        one, two = (estimate_seconds(trials.values(), jobs=jobs) for jobs in (1, 2))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert {shape for _, shape in seen} == {(8, 3, 8, 8)}
    assert [seen[0][0], seen[-1][0]] == [4, 2]
    assert two < one
    assert estimate_seconds([]) == 0


def test_transforms_and_bases_reach_a_study_from_the_command_line(capsys):
    torch.manual_seed(0)
    namespace = {}
    exec(NET, namespace)
    for n in range(2):
        torch.save(namespace["net"]().state_dict(), f"{n}.pt")
    command = ["ablate", "net.py:net", "--data", "photos", "--input-size", "3,8,8", "--batch-size", "8", "--dry-run"]
    assert main([*command, "--base", "0.pt", "--base", "1.pt", "--transform", "hflip=0", "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" none ") == 2 * 3
    assert main([*command, "--base", "0.pt", "--base", "1.pt", "--seeds", "3"]) == 2
    assert "2 weights for 3 seeds" in capsys.readouterr().err
    assert main([*command, "--base", "0.pt", "--checkpoint", "1.pt", "--seeds", "1"]) == 2
    assert "--base gives the weights already" in capsys.readouterr().err


def test_a_model_without_a_configuration_is_told_that_its_images_are_cropped(capsys):
    command = ["evaluate", "net.py:net", "--data", "photos", "--input-size", "3,8,8"]
    for more, told in (([], True), (["--transform", "crop_pct=1"], False)):
        assert main([*command, *more]) == 0
        assert ("the middle 87.5%" in capsys.readouterr().err) == told
