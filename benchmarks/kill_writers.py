"""SIGKILL at random moments to every command that writes, then the same command again: no broken output, nothing left.

    python benchmarks/kill_writers.py [--kills N] [--seed S]

A command runs in a fork of this process, which has imported everything: so kills fall into the work and the writing,
not into imports. One that came too late is not counted. After each kill an output either is not there or is whole.
After the next run of the same command it is whole, and no temporary file of poolswap's is left. Prints a table; exit
code 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import torch
from fuzz_doors import RESULT, SIZE
from PIL import Image
from pydantic import ValidationError

from poolswap import find_pools, load_model, verify_checkpoint
from poolswap.ablate.grid import make_grid
from poolswap.ablate.runs import Result, RunFolder
from poolswap.ablate.study import Study
from poolswap.cli.app import main as poolswap
from poolswap.errors import PoolswapError
from poolswap.files import PARTIAL, torch_save
from poolswap.surgery.plan import Plan

MODEL = ("timm:test_resnet", "--input-size", "3,16,16")
TRAINING = ("--set", "epochs=2", "--set", "batch_size=256")
STUDY = (*MODEL, "--num-classes=10", "--data=digits", "--checkpoint=in.pt", "--adapt=none", "--counts=1")


@dataclass(frozen=True)
class Writer:
    """A command, the name (a glob) of what it writes, and what raises where that is broken."""

    name: str
    command: tuple[str, ...]
    output: str
    check: Callable[[Path], object]
    before: Callable[[Path], object] = bool  # makes what it needs in the folder
    share: float = 1  # of the others' kills
    begun: str = ""  # a folder whose finished run leaves nothing to do, and which goes for the next one


def _verified(path: Path) -> None:
    if not verify_checkpoint(path).ok:
        raise ValueError("it does not verify")


def _page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("it has no end")


def _table(path: Path) -> None:
    with path.open(newline="") as file:
        first, *rows = csv.reader(file)
    if not rows or any(len(row) != len(first) for row in rows):
        raise ValueError("it is not a table")


def _run(folder: Path) -> None:
    """A run whose every trial has the same result."""
    model, spec = load_model(MODEL[0], input_size=SIZE)
    study = Study.make({"model": spec.reference, "data": "digits", "adapt": ["scratch"]})
    grid = make_grid(study, find_pools(model, SIZE))
    runs = RunFolder(folder / "ablation")
    runs.open(study, grid)
    for key in grid.trials:
        runs.trial(key).mkdir()
        runs.write_result(key, Result.model_validate(RESULT))


def export(to: str, output: str) -> tuple[str, ...]:
    return ("export", "in.safetensors", "--to", to, "--no-verify", "--force", "--output", output)


WRITERS = (
    Writer("convert", ("convert", *MODEL, "--force", "--output", "out.safetensors"), "out.safetensors", _verified),
    Writer("plan", ("convert", *MODEL, "--force", "--dry-run", "--plan-out", "plan.yaml"), "plan.yaml", Plan.read),
    Writer(
        "recalibrate",
        ("recalibrate", "in.safetensors", "--data", "digits", "--batches", "2", "--force", "--output", "r.safetensors"),
        "r.safetensors",
        _verified,
    ),
    Writer(
        "export, state dict", export("state-dict", "out.pt"), "out.pt", lambda path: torch.load(path, weights_only=True)
    ),
    Writer("export, folder", export("timm-folder", "out"), "out/model.safetensors", _verified),
    Writer("export, ONNX", export("onnx", "out.onnx"), "out.onnx", lambda p: onnx.checker.check_model(onnx.load(p))),
    Writer(
        "finetune",
        ("finetune", "in.safetensors", "--data", "digits", *TRAINING, "--resume", "--output", "training"),
        "training/*.safetensors",
        _verified,
    ),
    Writer(
        "ablate",
        ("ablate", *STUDY, "--output", "run"),
        "run/trials/*/result.json",
        lambda path: Result.model_validate_json(path.read_bytes()),
        share=0.25,  # it times every trial, and so takes a minute
        begun="run",
    ),
    Writer("report", ("report", "ablation"), "ablation/report.html", _page, _run),
    Writer(
        "bench",
        ("bench", "--shape=2,8,16,16", "--repeats=2", "--no-compile", "--csv=b.csv", "--plot=b.png", "--force"),
        "b.csv",
        _table,
    ),
    Writer(
        "images", ("images", "in.png", "--force", "--output", "images"), "images/*.png", lambda p: Image.open(p).load()
    ),
)


def start(folder: Path, command: tuple[str, ...]) -> int:
    """The process of the command in the folder, silent."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.chdir(folder)
        for stream, name in ((1, os.devnull), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        code = poolswap([*command, "--quiet"])
    finally:
        os._exit(code)


def finish(process: int) -> int:
    """How it ended: its exit code, or the negative number of the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


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


def attack(writer: Writer, kills: int, draw: random.Random) -> tuple[float, int, list[str], int]:
    """(seconds of a run, partial files that kills left, what was broken, files left after the next run)."""
    wrong, swept, remained, seconds, done = [], 0, 0, 0.0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run() -> None:
            nonlocal remained
            code = finish(start(folder, writer.command))
            said = (folder / "stderr.txt").read_text().splitlines()
            wrong.extend(broken(folder, writer) + [f"{writer.name} ended with {code}: {said[-2:]}"] * (code != 0))
            remained += len(left(folder))
            if writer.begun:
                shutil.rmtree(folder / writer.begun)

        Image.linear_gradient("L").save(folder / "in.png")
        finish(start(folder, ("convert", *MODEL, "--num-classes", "10", "--output", "in.safetensors")))
        torch_save(load_model(MODEL[0], num_classes=10)[0].state_dict(), folder / "in.pt")
        writer.before(folder)
        while done < kills:
            if done % 5 == 0:  # whole runs between, which also tell how long one takes
                began = time.perf_counter()
                run()
                seconds = max(seconds, time.perf_counter() - began)
            process = start(folder, writer.command)
            time.sleep(draw.random() * seconds)
            os.kill(process, signal.SIGKILL)
            done += finish(process) == -signal.SIGKILL
            wrong += broken(folder, writer)
            swept += len(left(folder))
        run()
    return seconds, swept, wrong, remained


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="*", metavar="GLOB", help="of the commands' names in the table")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fork has no other
    draw = random.Random(options.seed)
    failed = False
    print("| command | seconds | kills | swept by the next run | broken outputs | left after the next run |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    writers = [writer for writer in WRITERS if fnmatchcase(writer.name, options.only)]
    each = options.kills / sum(writer.share for writer in writers)
    for writer in writers:
        kills = math.ceil(each * writer.share)
        seconds, swept, wrong, remained = attack(writer, kills, draw)
        print(f"| {writer.name} | {seconds:.1f} | {kills} | {swept} | {len(wrong)} | {remained} |", flush=True)
        print(*wrong, sep="\n", end="\n" * bool(wrong), file=sys.stderr)
        failed |= bool(wrong or remained)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
