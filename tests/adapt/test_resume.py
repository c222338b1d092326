"""A training that is killed and resumed ends with the same bits as one that was left alone."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_at_random_updates_and_inside_a_save_it_ends_the_same(tmp_path):
    """SIGKILL at two random updates, and between writing a state and putting it in its place."""
    draw = random.Random(os.urandom(8))
    kills = [str(draw.randint(1, 7)), str(draw.randint(8, 14))]
    script = Path(__file__).with_name("kill_and_resume.py")
    answer = subprocess.run(
        [sys.executable, script, tmp_path, "", ",".join(kills), "s3"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    whole, killed, torn = map(json.loads, answer.stdout.splitlines())
    assert len(whole["rows"]) == 3
    assert killed == whole, kills
    assert torn == whole
    assert whole["files"] == ["best.safetensors", "epochs.json", "last.safetensors", "state-000000015"]
