"""How long a study will take, from one step of its model on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from torch import nn

from poolswap.ablate.grid import Trial
from poolswap.ablate.trial import load, recipe_of
from poolswap.environment import find_device
from poolswap.inputs import fitted, outputs_of, seeded_inputs
from poolswap.measure import interleave
from poolswap.measure.passes import forward_backward

_COSTS = 5.0  # seconds that a trial takes to load, and to compare time and memory
_EVALUATIONS = 3  # passes over the test images: the metrics, the shifted images, image by image


def estimate_seconds(trials: Iterable[Trial]) -> float:
    """Seconds that the trials take one after another, by the unmodified model's time on this machine.

    Raises InputError for a model or data that cannot be loaded: before the first trial, not in every one.
    """
    trials = list(trials)
    if not trials:
        return 0.0
    first = trials[0]
    device = find_device(first.running.device)
    data, model, spec = load(first, device)
    forward, step = _times(model, spec.input_size, first.batch_size, device)
    total = 0.0
    for trial in trials:
        train, test = (ceil(len(part) / trial.batch_size) for part in (data.train, data.val))
        total += _COSTS + _EVALUATIONS * test * forward
        if trial.adapt == "recalibrate":
            total += min(train, trial.recalibrate_batches or train) * forward
        elif trial.adapt != "none":
            total += recipe_of(trial).epochs * (train * step + test * forward)
    return total


def _times(model: nn.Module, input_size: tuple[int, ...], batch: int, device: str) -> tuple[float, float]:
    """(seconds of a forward, of a forward and backward) of one batch; the shorter of two."""
    inputs = fitted(model, seeded_inputs(model, input_size, seed=0, batch=batch))
    calls = {"forward": lambda: outputs_of(model, inputs), "step": lambda: forward_backward(model, inputs)}
    rounds = interleave(calls, 2, warmup=0, device=device)
    return 1e-3 * rounds.timing("forward").fastest, 1e-3 * rounds.timing("step").fastest
