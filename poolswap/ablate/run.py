"""Run the trials that have no result yet: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Literal

import torch

from poolswap.ablate.grid import Trial
from poolswap.ablate.runs import Failure, RunFolder
from poolswap.errors import CheckError, InputError

Outcome = Literal["done", "failed", "elsewhere"]
Engine = Callable[[RunFolder, Mapping[str, Trial]], Iterator[tuple[str, Outcome]]]

_LAST_LINES = 20


def run_trials(
    folder: RunFolder,
    trials: Mapping[str, Trial],
    engine: Engine,
    *,
    fail_fast: bool = False,
    seen: Callable[[str, Outcome], None] = lambda key, outcome: None,
) -> dict[str, Outcome]:
    """What became of every trial that had no result; `seen` is told of each as it ends. Failures stop nothing.

    With `fail_fast` the first one does: raises CheckError, and what is running is ended.
    """
    outcomes: dict[str, Outcome] = {}
    pending = {key: trial for key, trial in trials.items() if folder.result(key) is None}
    running = engine(folder, pending)
    try:
        for key, outcome in running:
            outcomes[key] = outcome
            seen(key, outcome)
            if fail_fast and outcome == "failed":
                failure = folder.failure(key)
                why = failure.error if failure else "no reason was kept"
                raise CheckError(f"trial {key} failed: {why}", f"see {folder.trial(key)}")
    finally:
        close = getattr(running, "close", None)
        if close:
            close()
    return outcomes


def local_engine(jobs: int = 1) -> Engine:
    """Trials in `jobs` processes, each with its part of the processors. A process that dies costs its trial."""

    def run(folder: RunFolder, trials: Mapping[str, Trial]) -> Iterator[tuple[str, Outcome]]:
        waiting: Queue[str] = Queue()
        for key in trials:
            waiting.put(key)
        ended: Queue[tuple[str, Outcome] | BaseException] = Queue()
        workers = [_Worker(folder, threads_of(jobs)) for _ in range(min(jobs, len(trials)))]
        threads = [threading.Thread(target=_serve, args=(worker, waiting, ended), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            for _ in trials:
                answer = ended.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            with suppress(Empty):
                while True:
                    waiting.get_nowait()
            for worker in workers:
                worker.stop()

    return run


def _serve(worker: _Worker, waiting: Queue[str], ended: Queue[tuple[str, Outcome] | BaseException]) -> None:
    try:
        while not worker.stopped:
            key = waiting.get_nowait()
            ended.put((key, worker.run(key)))
    except Empty:
        return
    except Exception as error:  # the thread that waits must hear of it
        ended.put(error)


class _Worker:
    """One process of `poolswap.ablate.worker`, started again where it died."""

    def __init__(self, folder: RunFolder, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self.stopped = False
        self._process: subprocess.Popen[str] | None = None
        self._starting = threading.Lock()

    def run(self, key: str) -> Outcome:
        process = self._started()
        answer = ""
        with suppress(OSError):  # the process may be dead already
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(key + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
        if answer in ("done", "failed", "elsewhere"):
            return answer  # type: ignore[return-value]
        code = _end(process)
        if not self.stopped:
            self.folder.write_failure(key, Failure(error=_death(code), traceback=_last_lines(self.folder, key)))
        return "failed"

    def stop(self) -> None:
        with self._starting:
            self.stopped = True
            if self._process is not None:
                self._process.kill()  # results are written at once or not at all
                _end(self._process)

    def _started(self) -> subprocess.Popen[str]:
        with self._starting:
            if self.stopped:
                raise RuntimeError("the run has ended")
            if self._process is None or self._process.poll() is not None:
                # -P: a checkout in the current folder is not the package in use.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "poolswap.ablate.worker", str(self.folder.path), str(self.threads)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)},
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others in order
                )
            return self._process


def _end(process: subprocess.Popen[str]) -> int:
    """The exit code of a process that is ending; its pipes are closed."""
    code = process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what is left in the pipe to a dead process
                stream.close()
    return code


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(jobs: int) -> int:
    """Threads of each of so many processes: its part of the processors, or as few as OMP_NUM_THREADS says."""
    return max(min(processors() // jobs, torch.get_num_threads()), 1)


def _death(code: int) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def _last_lines(folder: RunFolder, key: str) -> str:
    try:
        lines = (folder.trial(key) / "log.txt").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LAST_LINES:])


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4). Raises InputError."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise InputError(f"shard={text!r} is not I/N with I from 1 to N", "write for example shard='1/4'")
    return number, of
