"""A variant against its control: the paired difference, how sure one can be of it, and what may be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FEW_SEEDS = 5  # with fewer, intervals cover less than they say where seeds differ unevenly (docs/ablate.md)
_LARGE = 200  # degrees of freedom from which on Student's t is expanded about the normal distribution
_HALVINGS = 60


class Verdict(StrEnum):
    """What the interval allows to say. `NO_WORSE` and `WITHIN` are about a margin that does not matter."""

    BETTER = "better"
    NO_WORSE = "no worse"
    WITHIN = "worse within the margin"
    WORSE = "worse"
    OPEN = "open"
    ONE_SEED = "one seed: no verdict"

    def say(self, margin: float | None = None) -> str:
        """The verdict with its margin in it."""
        if self is Verdict.NO_WORSE:
            return f"no worse than {margin:g}"
        return f"worse by less than {margin:g}" if self is Verdict.WITHIN else str(self)


class Interval(NamedTuple):
    """A difference and the ends of its interval."""

    mean: float
    low: float
    high: float


class Noise(NamedTuple):
    """Variances of a paired difference: between seeds, between images, and of an image in one seed beside both."""

    seeds: float
    images: float
    both: float

    def variances(self, seeds: int, images: int, scale: float) -> tuple[tuple[float, int], ...]:
        """The parts of the variance of a mean over this many, with degrees of freedom, as `Difference.guarded`."""
        of_images = self.images / images + 2 * scale**2 / (images + 2) ** 2
        if seeds == 1:
            return ((of_images + self.both / images, images + 1),)
        return ((self.seeds / seeds + self.both / (seeds * images), seeds - 1), (of_images, images + 1))


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences over seeds and images, and what makes it uncertain.

    `variances` are the parts of the mean's variance, each with its degrees of freedom: the seeds', none for one seed,
    and the images', or blocks'. `guarded` are the same with two more images of which one gains and one loses `scale`,
    and `center` is the mean with them: what few images that differ, or none, do not exclude. `noise` is of one seed and
    one image, or block.
    """

    mean: float
    center: float
    variances: tuple[tuple[float, int], ...]
    guarded: tuple[tuple[float, int], ...]
    bound: float
    noise: Noise

    @classmethod
    def of(cls, table: Any, blocks: Any = None, *, scale: float | None = None, bound: float = math.inf) -> Difference:
        """The difference of a (seeds, images) table.

        `blocks` (images,) are numbers of groups of images that are not independent of one another. `scale` is how much
        an image can plausibly differ, the largest difference of the table by default, `bound` how much it can at all.

        Seeds and images are crossed: every seed met every image. So the variance of the mean is the seeds' plus the
        blocks' minus that of seeds within blocks, which both contain (Cameron, Gelbach and Miller 2011; Owen 2007). The
        seeds' part is at least the common one, which it contains: equal means of a few seeds are chance. Images of one
        block count by their sums (Cochran 1977, on cluster sampling). The two images more are those of Bonett and Price
        2012: without them no change among n images would exclude every change, where it still allows 3 / n.
        """
        table = np.asarray(table, dtype=np.float64)
        seeds, images = table.shape
        sums, sizes = _by_block(table, blocks)
        count, size = len(sizes), images / len(sizes)
        mean = float(table.mean())
        share = sizes / images
        moves = sums / images - mean * share
        each = moves.mean(0)
        # What an image cannot say of its block: the largest block's mean, at least one image of it.
        most = np.abs(table).max() if scale is None else scale
        block = max(float(np.abs(sums / sizes).max()), most / size)
        common = seed = 0.0
        if seeds > 1:
            own = moves.sum(1)
            rest = moves - each - own[:, None] * share
            common = float((rest**2).sum()) / (seeds * (seeds - 1)) * _corrected(count)
            seed = max(float((own**2).sum()) / (seeds * (seeds - 1)), common)
        part = max(float((each**2).sum()) * _corrected(count) - common, 0.0)
        center = mean * count / (count + 2)
        wider = sums.mean(0) - center * sizes
        pseudo = size * np.array([block - center, -block - center])
        total = images + 2 * size
        guard = float((wider**2).sum() + (pseudo**2).sum()) / total**2 * _corrected(count + 2) - common
        seeds_part = ((seed, seeds - 1),) if seeds > 1 else ()
        return cls(
            mean,
            center,
            (*seeds_part, (part, max(count - 1, 1))),
            (*seeds_part, (max(guard, 0.0), count + 1)),
            bound,
            Noise(seeds * (seed - common), part * count, common * seeds * count),
        )

    def interval(self, level: float = LEVEL) -> Interval:
        """The interval that covers the mean over all seeds and images this often.

        Each part has its own Student's t, and the halves add as squares (Zou and Donner 2008). It is the union of the
        intervals without and with the two images more.
        """
        half, guard = _half(self.variances, level), _half(self.guarded, level)
        low = max(min(self.mean - half, self.center - guard), -self.bound)
        high = min(max(self.mean + half, self.center + guard), self.bound)
        return Interval(self.mean, low, high)

    def detectable(self, level: float = LEVEL, power: float = 0.8) -> float:
        """The smallest true difference that a run like this one sees this often (Bloom 1995)."""
        return detectable(self.guarded, level, power)


def detectable(variances: Sequence[tuple[float, int]], level: float = LEVEL, power: float = 0.8) -> float:
    """The smallest true difference whose interval excludes zero with this probability, from the mean's variances."""
    return math.sqrt(sum(v * (student(level, df) + student(2 * power - 1, df)) ** 2 for v, df in variances))


def verdict(
    interval: Interval, *, seeds: int, deterministic: bool, margin: float | None = None, sign: int = 1
) -> Verdict:
    """What the interval shows: nothing where training was random and ran once.

    `sign` is -1 where less is better. `margin` is what may be lost without mattering: an interval above -margin is no
    worse (Piaggio et al. 2012). One that contains zero never shows that there is no difference.
    """
    if seeds == 1 and not deterministic:
        return Verdict.ONE_SEED
    low, high = (interval.low, interval.high) if sign > 0 else (-interval.high, -interval.low)
    if low > 0:
        return Verdict.BETTER
    within = margin is not None and low >= -margin
    if high < 0:
        return Verdict.WITHIN if within else Verdict.WORSE
    return Verdict.NO_WORSE if within else Verdict.OPEN


def joint_level(level: float, rows: int) -> float:
    """The level of each of `rows` intervals that all cover at once with probability `level` (Dunn 1961)."""
    return 1 - (1 - level) / max(rows, 1)


def unseen(seeds: int) -> float:
    """How often trainings may collapse while none of `seeds` did, with 95% confidence: from (1 - p)^seeds = 0.05."""
    return 1 - math.pow(0.05, 1 / seeds)


@lru_cache(maxsize=4096)
def student(level: float, df: int) -> float:
    """The t within which Student's distribution of `df` degrees of freedom has `level` of its probability.

    By halving its closed form (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4), or for many by the expansion 26.7.5.
    """
    if df > _LARGE:
        z = NormalDist().inv_cdf((1 + level) / 2)
        terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + math.fsum(term / df ** (n + 1) for n, term in enumerate(terms))
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < level else (low, middle)
    return math.sqrt(df) * math.tan(low)


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, sample standard deviation); None instead of the deviation of one value."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _within(angle: float, df: int) -> float:
    """The probability that |t| is below sqrt(df) tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term, total = (cosine if odd else 1.0), 0.0
    for n in range(odd, df - 1, 2):
        total += term
        term *= (n + 1) / (n + 2) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _half(variances: Sequence[tuple[float, int]], level: float) -> float:
    return math.sqrt(sum(variance * student(level, df) ** 2 for variance, df in variances))


def _corrected(count: int) -> float:
    """What makes a variance about a mean of `count` values unbiased; one value has none."""
    return count / (count - 1) if count > 1 else 1.0


def _by_block(table: NDArray[np.float64], blocks: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(the sums of each block (seeds, blocks), the images in each)."""
    if blocks is None:
        return table, np.ones(table.shape[1])
    _, codes = np.unique(np.asarray(blocks), return_inverse=True)
    sizes = np.bincount(codes).astype(np.float64)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(int)
    return np.add.reduceat(table[:, order], starts, axis=1), sizes
