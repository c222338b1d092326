"""A variant against its control: the paired difference, how sure one can be of it, and what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

_DRAWS = 4000
_SEED = 0
_Z = 1.959964  # 97.5% quantile of the normal distribution, and of Student's t for 1, 2, ... degrees of freedom:
_T = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
)


class Verdict(StrEnum):
    """What the interval allows to say."""

    BETTER = "better"
    SAME = "no difference seen"
    WORSE = "worse"
    OPEN = "one seed: no verdict"


class Interval(NamedTuple):
    """A difference and its 95% interval."""

    mean: float
    low: float
    high: float


def paired_interval(differences: Any) -> Interval:
    """The mean of (seeds, images) differences and its 95% bootstrap interval.

    Two things are drawn: which images the test set holds, and which seeds were run. Percentiles over a handful of seeds
    are far too narrow, so the seeds' deviations are widened by sqrt(n / (n - 1)) t / z, which makes the interval about
    Student's where differences are normal (after Hesterberg, The American Statistician 2015). With one seed only the
    images are drawn: the interval then says nothing about training again.
    """
    table = np.asarray(differences, dtype=np.float64)
    seeds, images = table.shape
    mean = float(table.mean())
    rng = np.random.default_rng(_SEED)
    # The bootstrap of a mean needs only how often each value is drawn, and there are few values.
    values, counts = np.unique(table.mean(0), return_counts=True)
    moves = rng.multinomial(images, counts / images, _DRAWS) @ values / images - mean
    if seeds > 1:
        means = table.mean(1)
        drawn = means[rng.integers(seeds, size=(_DRAWS, seeds))].mean(1) - mean
        moves = moves + drawn * _widening(seeds)
    low, high = np.quantile(moves, [0.025, 0.975])
    return Interval(mean, mean + float(low), mean + float(high))


def verdict(interval: Interval, *, seeds: int, deterministic: bool) -> Verdict:
    """Better or worse only where the whole interval is; nothing where training was random and ran once."""
    if seeds == 1 and not deterministic:
        return Verdict.OPEN
    if interval.low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if interval.high < 0 else Verdict.SAME


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, sample standard deviation); None instead of the deviation of one value."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _widening(seeds: int) -> float:
    t = _T[seeds - 2] if seeds - 2 < len(_T) else _Z
    return math.sqrt(seeds / (seeds - 1)) * t / _Z
