"""The same trials on a Ray cluster: its scheduling and its retries, our results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from poolswap.ablate.grid import Trial
from poolswap.ablate.run import Engine, Outcome
from poolswap.ablate.runs import Failure, Result, RunFolder
from poolswap.errors import MissingExtraError, first_line


def ray_engine(*, cpus: float = 1, gpus: float = 0, address: str | None = None, retries: int = 3) -> Engine:
    """Trials as Ray tasks of `cpus` and `gpus` each; Ray starts a task again whose node or process died.

    `address` is a running cluster's, as in ray.init; None uses that of RAY_ADDRESS, or starts Ray on this machine.
    Results come back through Ray, so the nodes need not see the runs folder; where they do, training resumes from it.
    Raises MissingExtraError without Ray.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None

    def run(folder: RunFolder, trials: Mapping[str, Trial]) -> Iterator[tuple[str, Outcome]]:
        started_here = not ray.is_initialized()
        if started_here:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        try:
            task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(_run_on_node)
            path = str(folder.path.resolve())
            keys: dict[Any, str] = {task.remote(path, key, trial): key for key, trial in trials.items()}
            while keys:
                (ready,), _ = ray.wait(list(keys), num_returns=1)
                key = keys.pop(ready)
                yield key, _kept(folder, key, ready)
        finally:
            if started_here:
                ray.shutdown()

    def _kept(folder: RunFolder, key: str, ready: Any) -> Outcome:
        try:
            answer: Result | Failure | None = ray.get(ready)
        except ray.exceptions.RayError as error:
            answer = Failure(error=f"Ray: {first_line(error)}", traceback=str(error))
        if answer is None:
            return "elsewhere"
        folder.trial(key).mkdir(parents=True, exist_ok=True)
        if isinstance(answer, Failure):
            folder.write_failure(key, answer)
            return "failed"
        folder.write_result(key, answer)
        return "done"

    return run


def _run_on_node(path: str, key: str, trial: Trial) -> Result | Failure | None:
    from tempfile import TemporaryDirectory

    from poolswap.ablate.worker import execute

    if Path(path).is_dir():
        return _outcome(RunFolder(path), key, trial, execute)
    with TemporaryDirectory() as scratch:
        return _outcome(RunFolder(scratch), key, trial, execute)


def _outcome(folder: RunFolder, key: str, trial: Trial, execute: Any) -> Result | Failure | None:
    outcome = execute(folder, key, trial)
    return folder.result(key) if outcome == "done" else folder.failure(key) if outcome == "failed" else None
