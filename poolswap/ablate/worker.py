"""A process that runs trials one after another: keys come in on stdin, one line goes out on stdout for each.

`python -m poolswap.ablate.worker RUN [THREADS]`, started by `poolswap.ablate.run`: a trial that takes the process down
with it costs only itself.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

from poolswap.ablate.grid import Trial
from poolswap.ablate.runs import Failure, RunFolder
from poolswap.errors import first_line


def execute(folder: RunFolder, key: str, trial: Trial) -> str:
    """Run the trial and keep what came out: "done", "failed", or "elsewhere" where another process is at it."""
    with folder.claim(key, trial) as mine:
        if not mine:
            return "elsewhere"
        if folder.result(key) is not None:
            return "done"
        try:
            from poolswap.ablate.trial import run_trial

            folder.write_result(key, run_trial(trial, folder.trial(key)))
        except Exception as error:
            text = f"{type(error).__name__}: {first_line(error)}"
            folder.write_failure(key, Failure(error=text, traceback=traceback.format_exc()))
            return "failed"
        return "done"


def main() -> None:
    """Serve until stdin ends, or this process is ended."""
    folder = RunFolder(sys.argv[1])
    if len(sys.argv) > 2:
        import torch

        torch.set_num_threads(int(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    trials = folder.grid().trials
    for key in _keys():
        with _logging(folder.trial(key)):
            outcome = execute(folder, key, trials[key])
        print(outcome, file=answers, flush=True)


def _keys() -> Iterator[str]:
    """Lines of stdin as they come. Where stdin ends, whoever started this process has: it ends too, in mid-trial."""
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


@contextmanager
def _logging(directory: Path) -> Iterator[None]:
    """Whatever the block prints, from Python or below it, goes to the trial's log."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    with (directory / "log.txt").open("ab") as log:
        try:
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for descriptor in (1, 2):
                os.dup2(kept, descriptor)
            os.close(kept)


if __name__ == "__main__":
    main()
