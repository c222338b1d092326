"""Every architecture of timm and torchvision: are all window pooling calls found, and are they all replaced?

    python benchmarks/coverage.py                   all of them, on two worker processes
    python benchmarks/coverage.py --only 'resnet*'  some of them

Each architecture is checked by `coverage_check.check` in a worker process that is replaced when it crashes, when it
passes the time limit, and after a number of architectures, since caches grow. A run that was broken off goes on where
it was: results stand in a JSON Lines file, one per architecture and set of versions.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from coverage_check import Result, check, family, references, versions
from coverage_report import write_report
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Exit status 0 where every check of every architecture holds, 1 otherwise."""
    options = _options()
    if options.worker:
        _serve(options.limit_memory)
        return 0
    names = references(options.only)
    known = {} if options.fresh else _read(options.results)
    todo = [name for name in _by_turns(names) if name not in known]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with options.results.open("w" if options.fresh else "a", encoding="utf-8") as file, _progress() as progress:
        bar = progress.add_task("", total=len(names), completed=len(names) - len(todo))
        lock = threading.Lock()

        def done(row: dict[str, Any]) -> None:
            with lock:
                known[row["model"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                progress.update(bar, advance=1, description=row["model"])
                if row["problem"]:
                    progress.console.print(f"{row['model']}: {row['problem']}", highlight=False)

        if not options.report:
            _spread(todo, done, options)
    rows = [known[name] for name in names if name in known]
    if options.only == "*":
        write_report(rows, len(names), ROOT / "docs" / "coverage.md", ROOT / "docs" / "coverage.csv")
    problems = sum(row["problem"] is not None for row in rows)
    minutes = (time.monotonic() - started) / 60
    print(f"{len(rows)} of {len(names)} architectures checked, {problems} with a problem; {minutes:.1f} minutes")
    return int(problems > 0 or len(rows) < len(names))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="architectures, with or without their library")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--time-limit", type=float, default=600, metavar="SECONDS", help="for one architecture")
    parser.add_argument("--limit-memory", type=float, default=16, metavar="GIB", help="address space of one worker")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--report", action="store_true", help="check nothing; write the page of what is known")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "coverage.jsonl", help="where results stand")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Results of these versions. What had a problem is checked again, and so is a last line that was cut off."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["versions"] == versions() and row["problem"] is None:
            rows[row["model"]] = row
    return rows


def _by_turns(names: list[str]) -> list[str]:
    """One of every family, then the second of every family, and so on: what goes wrong shows early."""
    turns: Counter[str] = Counter()
    ranks = {}
    for name in names:
        ranks[name] = turns[family(name)]
        turns[family(name)] += 1
    return sorted(names, key=ranks.__getitem__)


def _progress() -> Progress:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns)


def _spread(names: list[str], done: Any, options: argparse.Namespace) -> None:
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)

    def work() -> None:
        worker = _Worker(options)
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                worker.stop()
                return
            done(worker.check(name))

    threads = [threading.Thread(target=work) for _ in range(options.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Worker:
    """A process that checks one architecture after another, and whatever happens to it."""

    LIFE = 60  # architectures

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.checked = 0

    def check(self, name: str) -> dict[str, Any]:
        """The architecture's result; a crash and a time-out are results too."""
        if self.process is None or self.checked >= self.LIFE:
            self.stop()
            self.process = self._start()
            self.checked = 0
        self.checked += 1
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        started = time.monotonic()
        try:
            process.stdin.write(name + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], self.options.time_limit)
            line = process.stdout.readline() if ready else ""
        except BrokenPipeError:
            ready, line = True, ""
        if line:
            row: dict[str, Any] = json.loads(line)
            return row
        self.stop()
        problem = (
            f"the worker ended with {process.returncode}" if ready else f"no result in {self.options.time_limit:g} s"
        )
        seconds = round(time.monotonic() - started, 2)
        return Result(name, family(name), versions(), problem=problem, seconds=seconds).row()

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
            self.process = None

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--worker", "--limit-memory", str(self.options.limit_memory)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "POOLSWAP_MAX_MEMORY": "64G",  # what is built on the meta device takes none
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment)


def _serve(gib: float) -> None:
    """Names on stdin, results on stdout. The models' own printing must not reach stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30),) * 2)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(check(line.strip()).row()), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
