"""How long a study will take, from a few batches of its own images on as many threads as its trials will have."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from math import ceil
from typing import NamedTuple

import torch
from torch import nn

from poolswap.ablate.grid import Trial
from poolswap.ablate.run import processors, threads_of
from poolswap.ablate.trial import load, recipe_of
from poolswap.adapt import Data, make_loader
from poolswap.adapt.data import Part
from poolswap.environment import find_device
from poolswap.inputs import fitted, outputs_of
from poolswap.measure import interleave
from poolswap.measure.passes import forward_backward

_LOADING, _COSTS = 1.0, 6.0  # seconds of a trial to load and to swap, and to compare time and memory where it does
_EVALUATIONS = 2  # forwards for each image that is judged on: as it is, and shifted
_BATCHES = 3


class _Seconds(NamedTuple):
    """Of one batch: to read it, to answer it, to train on it."""

    read: float
    forward: float
    step: float


def estimate_seconds(trials: Iterable[Trial], *, jobs: int = 1) -> float:
    """Seconds that the trials take, `jobs` at a time, by the unmodified model's time on this machine as busy as it is.

    Raises InputError for a model or data that cannot be loaded: before the first trial, not in every one.
    """
    trials = list(trials)
    if not trials:
        return 0.0
    widest = max(trials, key=lambda trial: len(trial.content))
    device = find_device(widest.running.device)
    data, model, _ = load(widest, device)
    with _threads(threads_of(jobs)):
        cost = _measured(data, model, widest, device)
    total = sum(_LOADING + _COSTS * trial.costs + _batches_cost(trial, data, cost) for trial in trials)
    return total / min(jobs, processors())


def _batches_cost(trial: Trial, data: Data, cost: _Seconds) -> float:
    judged = ceil(len(data.images(trial.split)) / trial.batch_size)
    probed = len(trial.probe.paths) if trial.probe else 0
    total = judged * (cost.read + _EVALUATIONS * cost.forward) + probed * judged * (cost.read + cost.forward)
    if trial.adapt == "none" or trial.trained is not None:
        return total
    train = len(data.train) // trial.batch_size
    if trial.adapt == "recalibrate":
        return total + min(train, trial.recalibrate_batches or train) * (cost.read + cost.forward)
    chosen = ceil(len(data.val) / trial.batch_size)
    return total + recipe_of(trial).epochs * (train * (cost.read + cost.step) + chosen * (cost.read + cost.forward))


def _measured(data: Data, model: nn.Module, trial: Trial, device: str) -> _Seconds:
    """Medians over a few rounds, of the images that the trial reads."""
    part: Part = "plain" if data.train is not None else trial.split
    loader = make_loader(data, part, trial.batch_size, **trial.running.reading)
    began = time.perf_counter()
    batches = [images for images, _ in islice(loader, _BATCHES)]
    read = (time.perf_counter() - began) / len(batches)
    inputs = fitted(model, ((batches[0],), {}))
    calls = {"forward": lambda: outputs_of(model, inputs), "step": lambda: forward_backward(model, inputs)}
    rounds = interleave(calls, _BATCHES, warmup=1, device=device)
    return _Seconds(read, 1e-3 * rounds.timing("forward").median, 1e-3 * rounds.timing("step").median)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
