"""Runs survive what happens to them: a trial that takes its process down, a kill, a second run, a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from poolswap.ablate.cluster import ray_engine
from poolswap.ablate.grid import grid_of
from poolswap.ablate.record import miscalibration
from poolswap.ablate.report import summarise
from poolswap.ablate.run import local_engine, parse_shard, run_trials, threads_of
from poolswap.ablate.runs import Failure, RunFolder
from poolswap.ablate.study import Study
from poolswap.ablate.worker import execute
from poolswap.cli.app import main
from poolswap.errors import CheckError, InputError

ROOT = Path(__file__).parents[2]

NET = """
from torch import nn


def net(num_classes=10):
    block = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2)
    return nn.Sequential(*block, nn.Flatten(), nn.Linear(8 * 4, num_classes))
"""

POOL = """
import os
import signal
from pathlib import Path

from poolswap.nn import SoftPool


class Deadly(SoftPool):
    "SoftPool that ends its process while the file armed is there."

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        if Path("armed").exists():
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""

FIELDS = {
    "model": "net.py:net",
    "data": "digits",
    "input_size": (3, 8, 8),
    "adapt": "scratch",
    "counts": "1",
    "seeds": 1,
    "batch_size": 256,
    "recipe": {"epochs": 1},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("poolswap.ablate.costs._ROUNDS", 3)  # what times say is not asked here
    Path("net.py").write_text(NET)
    Path("pool.py").write_text(POOL)
    return tmp_path


def open_run(name="run", **fields):
    study = Study.make({**FIELDS, **fields})
    folder, grid = RunFolder(name), grid_of(study)
    folder.open(study, grid)
    return folder, grid


def in_process(folder, trials):
    for key, trial in trials.items():
        yield key, execute(folder, key, trial)


def test_a_trial_that_kills_its_process_costs_only_itself_and_is_tried_again():
    folder, grid = open_run(operators=["pool.py:Deadly", "soft"])
    Path("poolswap.py").write_text("raise RuntimeError('not the package')")  # workers must not take it
    Path("armed").touch()
    outcomes = run_trials(folder, grid.trials, local_engine(2))
    named = {grid.trials[key].to: outcome for key, outcome in outcomes.items()}
    assert named == {None: "done", "pool.py:Deadly": "failed", "soft": "done"}
    (dead,) = [key for key, outcome in outcomes.items() if outcome == "failed"]
    failure = folder.failure(dead)
    assert failure.error == "the process was ended by SIGKILL"
    assert "about to die" in failure.traceback
    Path("armed").unlink()
    assert run_trials(folder, grid.trials, local_engine()) == {dead: "done"}
    assert folder.failure(dead) is None
    assert run_trials(folder, grid.trials, local_engine()) == {}
    assert summarise([folder]).finished == 3


def test_a_trial_measures_what_the_report_shows():
    folder, grid = open_run()
    run_trials(folder, grid.trials, in_process)
    control, soft = (folder.result(key) for key in grid.trials)
    for result in (control, soft):
        record = result.record
        assert result.top1 == pytest.approx(100 * record.values("correct").mean())
        assert result.shift_consistency == pytest.approx(100 * record.values("steady").mean())
        assert result.loss == pytest.approx(record.values("loss").mean())
        assert result.ece == pytest.approx(
            miscalibration(record.values("confidence"), record.values("correct")).mean(), abs=1e-6
        )
        assert ((record.values("margin") > 0) == (record.values("correct") > 0)).all()
        assert [(cost.direction, cost.batch) for cost in result.costs][1:] == [
            ("forward", result.costs[1].batch),
            ("training", 1),
            ("training", result.costs[1].batch),
        ]
        assert all(cost.milliseconds > 0 for cost in result.costs)
    for own, other in zip(control.costs, soft.costs, strict=True):
        assert own.memory == own.control_memory == other.control_memory
    assert control.parameters == soft.parameters
    assert control.drift is None
    assert soft.drift > 0
    assert [site.path for site in soft.sites] == ["3"]
    assert not (folder.trial(next(iter(grid.trials))) / "training").exists()


def test_a_trial_gives_the_same_numbers_again():
    found = []
    for name in ("one", "two"):
        folder, grid = open_run(name)
        run_trials(folder, grid.trials, in_process)
        found.append([(folder.result(key).record, folder.result(key).loss) for key in grid.trials])
    assert found[0] == found[1]


def test_a_failure_keeps_its_traceback_and_stops_nothing():
    Path("broken.py").write_text(POOL.replace("if Path", "raise RuntimeError('no such pool')\n        if Path"))
    folder, grid = open_run(operators=["broken.py:Deadly", "soft"])
    outcomes = run_trials(folder, grid.trials, in_process)
    assert list(outcomes.values()) == ["done", "failed", "done"]
    failure = folder.failure(next(key for key, outcome in outcomes.items() if outcome == "failed"))
    assert "no such pool" in failure.error
    assert "Traceback" in failure.traceback


def test_fail_fast_stops_at_the_first_failure():
    folder, grid = open_run(seeds=3)
    closed = []

    def engine(folder, trials):
        try:
            for key in trials:
                folder.write_failure(key, Failure(error="RuntimeError: no", traceback=""))
                yield key, "failed"
        finally:
            closed.append(True)

    with pytest.raises(CheckError, match="RuntimeError: no"):
        run_trials(folder, grid.trials, engine, fail_fast=True)
    assert sum(folder.failure(key) is not None for key in grid.trials) == 1
    assert closed == [True]


def test_a_trial_that_another_process_holds_is_left_to_it():
    folder, grid = open_run()
    key, trial = next(iter(grid.trials.items()))
    with folder.claim(key, trial) as mine:
        assert mine
        assert execute(folder, key, trial) == "elsewhere"


def test_a_half_written_result_counts_as_none():
    folder, grid = open_run()
    key = next(iter(grid.trials))
    folder.trial(key).mkdir()
    (folder.trial(key) / "result.json").write_text('{"top1": 9')
    assert folder.result(key) is None


def test_a_folder_of_something_else_is_not_touched():
    Path("mine").mkdir()
    Path("mine/letter.txt").touch()
    with pytest.raises(InputError, match="not a runs folder"):
        open_run("mine")


@pytest.mark.slow
def test_killed_and_run_again_it_gives_what_an_undisturbed_run_gives():
    arguments = [sys.executable, "-m", "poolswap", "ablate", "net.py:net", "--data", "digits", "--adapt", "scratch"]
    arguments += ["--counts", "1", "--seeds", "2", "--input-size", "3,8,8", "--set", "epochs=1"]
    arguments += ["--batch-size", "256", "--output", "killed"]
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path("killed").glob("trials/*/result.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its worker notices, and gives its trial back
    folder = RunFolder("killed")
    grid = folder.grid()
    before = {key: folder.result(key) for key in grid.trials if folder.result(key) is not None}
    assert 0 < len(before) < 4
    outcomes = run_trials(folder, grid.trials, in_process)
    assert set(outcomes) == set(grid.trials) - set(before)
    assert all(folder.result(key) == result for key, result in before.items())
    undisturbed, same = open_run("undisturbed", seeds=2)
    run_trials(undisturbed, same.trials, in_process)
    assert [folder.result(key).record for key in grid.trials] == [undisturbed.result(k).record for k in grid.trials]


def test_the_command_prints_its_grid_runs_its_shards_and_reports(capsys):
    arguments = ["ablate", "net.py:net", "--data", "digits", "--adapt", "scratch", "--counts", "1", "--seeds", "1"]
    arguments += ["--input-size", "3,8,8", "--set", "epochs=1", "--batch-size", "256"]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["pending"]) == 2
    assert document["seconds"] > 0
    assert not Path("ablation").exists()
    for part in ("1/2", "2/2"):
        assert main([*arguments, "--shard", part, "--output", f"part{part[0]}"]) == 0
    assert "[1/1] " in capsys.readouterr().err
    assert main(["report", "part1", "part2", "--output", "together", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["seeds"] for row in rows] == [1, 1]
    assert rows[1]["top1_verdict"] == "one seed: no verdict"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "digits"], "these are random"),
        (["--adapt", "scratch"], "study's data: "),
        (["--data", "nowhere", "--adapt", "scratch"], "nowhere"),
        (["--data", "digits", "--adapt", "scratch", "--counts", "9"], "of 2 layers"),
        (["--data", "digits", "--adapt", "scratch", "--shard", "3/2"], "--shard"),
        (["--data", "digits", "--adapt", "scratch", "--set", "epoch=1"], "epoch"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_runs(arguments, said, capsys):
    assert main(["ablate", "net.py:net", "--input-size", "3,8,8", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not Path("ablation").exists()


def test_the_layers_that_are_counted_are_chosen_as_in_convert(capsys):
    """What a hint says to type is taken: a model of global pooling alone has nothing else."""
    Path("head.py").write_text(
        "from torch import nn\ndef net(num_classes=10):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))\n"
        "def none(num_classes=10):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    command = ["--data", "digits", "--adapt", "scratch", "--input-size", "3,8,8", "--seeds", "1", "--dry-run"]
    assert main(["ablate", "head.py:net", *command]) == 5
    assert "--include-global" in capsys.readouterr().err
    assert main(["ablate", "head.py:net", "--include-global", *command]) == 0
    assert "2 trials over 1 layers" in capsys.readouterr().err
    assert main(["ablate", "head.py:none", *command]) == 5
    assert "poolswap convert --include convs" in capsys.readouterr().err
    assert main(["ablate", "net.py:net", "--exclude", "3", *command]) == 0
    assert "2 trials over 1 layers" in capsys.readouterr().err
    assert main(["ablate", "net.py:net", "--op", "avg", *command]) == 5


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_shards_that_are_none(text):
    with pytest.raises(InputError, match="shard="):
        parse_shard(text)


@pytest.mark.slow
def test_a_local_ray_gives_what_one_process_gives(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder, grid = open_run("ray")
    assert set(run_trials(folder, grid.trials, ray_engine(cpus=1)).values()) == {"done"}
    alone, _ = open_run("alone")
    run_trials(alone, grid.trials, in_process)
    assert [folder.result(k).record for k in grid.trials] == [alone.result(k).record for k in grid.trials]


def test_trials_take_their_part_of_the_processors_and_no_more_threads_than_torch_has(monkeypatch):
    monkeypatch.setattr("poolswap.ablate.run.processors", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert [threads_of(jobs) for jobs in (1, 3, 16)] == [8, 2, 1]
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)  # OMP_NUM_THREADS=1
    assert threads_of(1) == 1
