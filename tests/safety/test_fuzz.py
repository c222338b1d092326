"""Every parser gives a value or a refusal, and a killed command leaves nothing broken: short runs of the benchmarks."""

import subprocess
import sys
from pathlib import Path

import fuzz_doors
import pytest

KILLS = Path(fuzz_doors.__file__).with_name("kill_writers.py")


def test_every_parser_takes_or_refuses():
    found = fuzz_doors.run(1200, seed=7)
    assert {name: wrong for name, (_, _, wrong) in found.items() if wrong} == {}
    assert sum(map(sum, found.values())) >= 1200


@pytest.mark.slow
def test_killed_commands_leave_nothing_broken():
    run = subprocess.run([sys.executable, KILLS, "--kills", "14"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
