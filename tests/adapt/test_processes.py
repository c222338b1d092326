"""Several processes train to what one process does with the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from poolswap.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow  # every process imports everything again

SCRIPT = Path(__file__).with_name("processes.py")
ROOT = Path(__file__).parents[2]


def launch(folder, processes=1, **environment):
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), SCRIPT, folder],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    answer = launch(folder)
    assert answer.returncode == 0, answer.stderr
    return folder


def same(one, other):
    rows = [json.loads((folder / "epochs.json").read_text()) for folder in (one, other)]
    for a, b in zip(*rows, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)
    weights = [load_checkpoint(f / "last.safetensors", trust_code=True)[0].state_dict() for f in (one, other)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-5)


def test_two_processes_equal_one_with_the_same_batch(alone, tmp_path):
    """Gloo on the CPU: 2 processes of 2 steps of 8 images, against 1 process of 2 steps of 16."""
    answer = launch(tmp_path, 2)
    assert answer.returncode == 0, answer.stderr
    same(alone, tmp_path)


def test_fsdp_trains_and_saves_whole_weights(alone, tmp_path):
    """FSDP2 over gloo on the CPU."""
    answer = launch(
        tmp_path,
        2,
        ACCELERATE_USE_FSDP="true",
        FSDP_VERSION="2",
        FSDP_AUTO_WRAP_POLICY="NO_WRAP",
        FSDP_STATE_DICT_TYPE="FULL_STATE_DICT",
    )
    assert answer.returncode == 0, answer.stderr
    same(alone, tmp_path)
