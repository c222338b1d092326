"""SIGKILL at random moments to every command that writes, then the same command again: no broken output, nothing left.

    python benchmarks/kill_writers.py [--kills N] [--seed S]

After each kill an output either is not there or is whole. After the next run of the same command it is whole, and no
temporary file of poolswap's is left. Prints a table; exit code 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from pydantic import ValidationError

from poolswap import verify_checkpoint
from poolswap.ablate.runs import Result
from poolswap.errors import PoolswapError
from poolswap.files import PARTIAL
from poolswap.surgery.plan import Plan

MODEL = ("timm:test_resnet", "--input-size", "3,16,16")
TRAINING = ("--set", "epochs=2", "--set", "batch_size=256")


@dataclass(frozen=True)
class Writer:
    """A command, the name (a glob) of what it writes, and what raises where that is broken."""

    name: str
    command: tuple[str, ...]
    output: str
    check: Callable[[Path], object]


def _verified(path: Path) -> None:
    if not verify_checkpoint(path).ok:
        raise ValueError("it does not verify")


WRITERS = (
    Writer("convert", ("convert", *MODEL, "--force", "--output", "out.safetensors"), "out.safetensors", _verified),
    Writer("plan", ("convert", *MODEL, "--force", "--dry-run", "--plan-out", "plan.yaml"), "plan.yaml", Plan.read),
    Writer(
        "export",
        ("export", "in.safetensors", "--to", "state-dict", "--no-verify", "--force", "--output", "out.pt"),
        "out.pt",
        lambda path: torch.load(path, weights_only=True),
    ),
    Writer(
        "export, folder",
        ("export", "in.safetensors", "--to", "timm-folder", "--no-verify", "--force", "--output", "out"),
        "out/model.safetensors",
        _verified,
    ),
    Writer(
        "finetune",
        ("finetune", "in.safetensors", "--data", "digits", *TRAINING, "--resume", "--output", "training"),
        "training/*.safetensors",
        _verified,
    ),
    Writer(
        "ablate",
        ("ablate", *MODEL, "--data", "digits", "--adapt=scratch", "--counts=1", "--seeds=1", *TRAINING, "-o", "run"),
        "run/trials/*/result.json",
        lambda path: Result.model_validate_json(path.read_bytes()),
    ),
    Writer(
        "images", ("images", "in.png", "--force", "--output", "images"), "images/*.png", lambda p: Image.open(p).load()
    ),
)


def start(folder: Path, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """The command in the folder, silent."""
    return subprocess.Popen(
        [sys.executable, "-m", "poolswap", *command, "--quiet"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr.txt").open("wb"),
    )


def broken(folder: Path, writer: Writer) -> list[str]:
    """What is wrong with the outputs that are there."""
    found = []
    for path in folder.glob(writer.output):
        try:
            writer.check(path)
        except (PoolswapError, ValidationError, ValueError, OSError, RuntimeError) as error:
            found.append(f"{writer.name}: {path.name}: {error}")
    return found


def left(folder: Path) -> list[str]:
    """Temporary files and folders of poolswap's."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name.startswith((PARTIAL, ".state-"))]


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    failed = False
    print("| command | seconds | kills | swept by the next run | broken outputs | left after the next run |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for number, writer in enumerate(WRITERS):
        kills = options.kills // len(WRITERS) + (number < options.kills % len(WRITERS))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            Image.linear_gradient("L").save(folder / "in.png")
            start(folder, ("convert", *MODEL, "--num-classes", "10", "--output", "in.safetensors")).wait()
            wrong, swept, remained, seconds, done = [], 0, 0, 0.0, 0
            while done < kills:
                if seconds == 0 or done % 5 == 4:  # whole runs between, which also tell how long one takes
                    began = time.perf_counter()
                    code = start(folder, writer.command).wait()
                    seconds = max(seconds, time.perf_counter() - began)
                    said = (folder / "stderr.txt").read_text().splitlines()
                    wrong += broken(folder, writer) + [f"{writer.name} ended with {code}: {said[-2:]}"] * (code != 0)
                    remained += len(left(folder))
                process = start(folder, writer.command)
                time.sleep(draw.uniform(0.3, 1.0) * seconds)
                process.kill()
                process.wait()
                done += 1
                wrong += broken(folder, writer)
                swept += len(left(folder))
            wrong += [f"{writer.name} does not end well"] * (start(folder, writer.command).wait() != 0)
            wrong += broken(folder, writer)
            remained += len(left(folder))
        print(f"| {writer.name} | {seconds:.1f} | {kills} | {swept} | {len(wrong)} | {remained} |", flush=True)
        print(*wrong, sep="\n", end="\n" * bool(wrong), file=sys.stderr)
        failed |= bool(wrong or remained)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
