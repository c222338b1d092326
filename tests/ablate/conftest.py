"""Runs folders and engines with made-up results, so that reports and commands are tested on numbers that are known."""

import pytest
from ablation_runs import made_up
from torch import nn

from poolswap.ablate.grid import make_grid
from poolswap.ablate.runs import Failure, RunFolder
from poolswap.ablate.study import Study
from poolswap.surgery.sites import find_pools


@pytest.fixture
def make_run(tmp_path):
    """make_run(**fields of the study) -> (folder, grid) in which n layers make `wrong` n + seed more images wrong."""

    def make(name="run", fail=lambda trial: False, leave_out=lambda trial: False, wrong=2, groups=None, **fields):
        net = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Flatten())
        size = (3, 16, 16)
        study = Study.make(
            {
                "model": "<net>.py:net",
                "data": "digits",
                "weights": "pretrained",
                "adapt": ["none", "finetune"],
                "seeds": 3,
                **fields,
            }
        )
        grid = make_grid(study, find_pools(net, size))
        folder = RunFolder(tmp_path / name)
        folder.open(study, grid, list(map(str, groups)) if groups else None)
        for key, trial in grid.trials.items():
            folder.trial(key).mkdir()
            if fail(trial):
                folder.write_failure(key, Failure(error="RuntimeError: <bad> luck", traceback="Traceback\n<bad> luck"))
            elif not leave_out(trial):
                folder.write_result(key, made_up(trial, 10 + wrong * len(trial.paths) + trial.seed))
        return folder, grid

    return make


@pytest.fixture
def made_up_engine(tmp_path, monkeypatch):
    """made_up_engine(wrong) -> the trials that `poolswap ablate` ran, by an engine that makes `wrong(trial)` wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("poolswap.ablate.estimate.estimate_seconds", lambda trials, jobs: 0.0)

    def make(wrong):
        ran = []

        def engine(folder, trials):
            for key, trial in trials.items():
                ran.append(trial)
                with folder.claim(key, trial):
                    folder.write_result(key, made_up(trial, wrong(trial)))
                yield key, "done"

        monkeypatch.setattr("poolswap.cli.ablate.Execution.start", lambda execution: engine)
        return ran

    return make
