"""How often the intervals of an ablation cover what they should, by simulation.

    python benchmarks/interval_coverage.py [--repeats 2000] [--csv docs/interval-coverage.csv]

Each case draws a (seeds, images) table of paired differences whose true mean over all seeds and images is known. Beside
the interval of `poolswap.ablate.stats` stands the bootstrap that is usual: seeds and images drawn anew, percentiles.
Prints the share of repeats whose 95% interval covers the truth as a Markdown table, and the mean width in points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from poolswap.ablate.record import miscalibration
from poolswap.ablate.sequential import level_at, looks
from poolswap.ablate.stats import LEVEL, Difference, joint_level
from poolswap.files import csv_of, write_text

Array = NDArray[np.float64]
SEEDS = (2, 3, 5, 10)
IMAGES = 300
_BLOCK = 10
_DRAWS = 400


def bits(rng: Generator, gain: Any, loss: Any, seeds: int, images: int) -> Array:
    """Differences in points: +100 with probability `gain`, -100 with probability `loss`, each seed and image anew."""
    drawn = rng.random((seeds, images))
    return 100.0 * ((drawn < gain) * 1.0 - (drawn > 1 - np.asarray(loss)))


def nothing(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Eight in a hundred images change, as often for the better as for the worse, other ones in each training."""
    return bits(rng, 0.04, 0.04, seeds, images), 0.0


def seed_noise(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Trainings differ by a standard deviation of 2 points, images hardly."""
    own = rng.normal(0, 0.02, (seeds, 1))
    return 100 * own + rng.normal(0, 1.0, (seeds, images)), 0.0


def skewed_seeds(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Trainings lose an exponential number of points, 2 on average."""
    own = rng.exponential(0.02, (seeds, 1))
    return -100 * own + rng.normal(0, 1.0, (seeds, images)), -2.0


def collapses(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """One training in ten loses 50 points, the others none."""
    own = np.where(rng.random((seeds, 1)) < 0.1, 0.5, 0.0)
    return bits(rng, 0.02, 0.02 + own, seeds, images), -5.0


def image_kinds(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """The same images change in every training: six in a hundred better, six worse."""
    kind = rng.choice([1.0, -1.0, 0.0], images, p=[0.06, 0.06, 0.88])
    return bits(rng, 0.005 + 0.9 * (kind > 0), 0.005 + 0.9 * (kind < 0), seeds, images), 0.0


def rare_images(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """One image in a hundred is of a kind that is lost in every training; nothing else changes."""
    return np.tile(-100.0 * (rng.random(images) < 0.01), (seeds, 1)), -1.0


def very_rare_images(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """The same of one image in five hundred: most test sets have none."""
    return np.tile(-100.0 * (rng.random(images) < 0.002), (seeds, 1)), -0.2


def worse(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Three points are lost, with noise of trainings (1 point), of kinds of images, and of both."""
    own = rng.normal(0, 0.01, (seeds, 1))
    kind = rng.random(images) < 0.02
    return bits(rng, np.clip(0.04 + own, 0, 1), 0.05 + 1.0 * kind * 0.9 + 0.02 * ~kind, seeds, images), (
        100 * (0.04 - 0.05 - 0.02 * 0.9 - 0.98 * 0.02)
    )


def heavy_losses(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Losses: each image's difference is log-normal, a few make most of the mean (exp(0.72) = 2.05)."""
    kind = rng.lognormal(0, 1.2, images)
    return kind * rng.lognormal(0, 0.3, (seeds, images)) * rng.normal(1, 0.1, (seeds, 1)), float(np.exp(0.72 + 0.045))


def blocks(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Blocks of ten images that share what becomes of them, by half."""
    kind = np.repeat(rng.normal(0, 0.1, images // _BLOCK), _BLOCK)
    return bits(rng, np.clip(0.15 + kind, 0, 1), np.clip(0.15 - kind, 0, 1), seeds, images), 0.0


def calibration(rng: Generator, seeds: int, images: int, more: float) -> tuple[Array, float]:
    """Calibration errors of a variant, overconfident by 5 points and `more`, less those of a control, by 5 points."""

    def error(overconfident: float) -> Array:
        sure = rng.uniform(0.6, 0.95, (seeds, images))
        right = rng.random((seeds, images)) < sure - overconfident
        return np.stack([miscalibration(a, b * 1.0) for a, b in zip(sure, right, strict=True)])

    return 100 * (error(0.05 + more) - error(0.05)), 100 * more


def same_calibration(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Two models of one calibration."""
    return calibration(rng, seeds, images, 0.0)


def worse_calibration(rng: Generator, seeds: int, images: int) -> tuple[Array, float]:
    """Five points more: the error of few images is too large where it is small, so their difference is too small."""
    return calibration(rng, seeds, images, 0.05)


@dataclass(frozen=True)
class Case:
    """A case, and whether its blocks are given to the interval."""

    name: str
    draw: Callable[[Generator, int, int], tuple[Array, float]]
    scale: float | None = 100.0
    grouped: bool = False


CASES = (
    Case("no difference", nothing),
    Case("seeds differ", seed_noise),
    Case("seeds differ, skewed", skewed_seeds),
    Case("one seed in ten collapses", collapses),
    Case("kinds of images differ", image_kinds),
    Case("1 % of images fail", rare_images),
    Case("0.2 % of images fail", very_rare_images),
    Case("3 to 5 points worse, all noises", worse),
    Case("losses, heavy-tailed", heavy_losses, scale=None),
    Case("calibration error, the same", same_calibration, scale=None),
    Case("calibration error, 5 points worse", worse_calibration, scale=None),
    Case("blocks of 10, as single images", blocks),
    Case("blocks of 10, as blocks", blocks, grouped=True),
)


class Bootstrap:
    """The usual interval: seeds and images drawn anew, percentiles of the means."""

    def __init__(self, rng: Generator, seeds: int, images: int, draws: int = _DRAWS) -> None:
        self.images = rng.multinomial(images, np.full(images, 1 / images), draws) / images
        self.seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds

    def interval(self, table: Array) -> tuple[float, float]:
        """(low, high) of a table."""
        low, high = np.quantile(((self.images @ table.T) * self.seeds).sum(1), [0.025, 0.975])
        return float(low), float(high)


def coverage(case: Case, seeds: int, repeats: int, *, images: int = IMAGES, usual: bool = True) -> dict[str, Any]:
    """The shares of repeats that are covered, and the mean width, for this number of seeds."""
    rng = np.random.default_rng([seeds, images])
    groups = np.arange(images) // _BLOCK if case.grouped else None
    other = Bootstrap(rng, seeds, images) if usual else None
    covered, width, theirs = 0, 0.0, 0
    for _ in range(repeats):
        table, truth = case.draw(rng, seeds, images)
        low, high = Difference.of(table, groups, scale=case.scale).interval()[1:]
        covered += low <= truth <= high
        width += high - low
        if other is not None:
            low, high = other.interval(table)
            theirs += low <= truth <= high
    found = {"case": case.name, "seeds": seeds, "repeats": repeats, "coverage": covered / repeats}
    return {**found, "width": width / repeats, "bootstrap": theirs / repeats if other is not None else None}


def false_headlines(repeats: int, *, rows: int = 16, seeds: int = 1, images: int = IMAGES) -> float:
    """The share of reports on `rows` layers without a difference that claim one for any of them."""
    rng = np.random.default_rng([rows, seeds])
    level = joint_level(LEVEL, rows)

    def claims() -> bool:
        low, high = Difference.of(nothing(rng, seeds, images)[0], scale=100.0, bound=100.0).interval(level)[1:]
        return low > 0 or high < 0

    return sum(any(claims() for _ in range(rows)) for _ in range(repeats)) / repeats


def stopped(
    repeats: int, *, until: float = 3.0, first: int = 3, most: int = 12, images: int = IMAGES
) -> dict[str, float]:
    """A run that adds seeds until its interval is `until` points wide: how often the last one covers, and its seeds."""
    rng = np.random.default_rng(first)
    covered = used = 0
    for _ in range(repeats):
        table, truth = worse(rng, most, images)
        for look in looks(first, most):
            low, high = Difference.of(table[:look], scale=100.0).interval(level_at(look, first, most))[1:]
            if high - low < until or look == most:
                covered += low <= truth <= high
                used += look
                break
    return {"coverage": covered / repeats, "seeds": used / repeats}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write it as CSV where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(arguments)
    rows = [coverage(case, seeds, options.repeats) for case in CASES for seeds in SEEDS]
    head = [*(f"{n} seeds" for n in SEEDS), *(f"usual, {n}" for n in SEEDS), "width, 5 seeds"]
    print("| case | " + " | ".join(head) + " |")
    print("|---|" + "--:|" * len(head))
    for case in CASES:
        mine = [row for row in rows if row["case"] == case.name]
        cells = [f"{row['coverage']:.3f}" for row in mine] + [f"{row['bootstrap']:.3f}" for row in mine]
        print(f"| {case.name} | {' | '.join(cells)} | {mine[2]['width']:.2f} |")
    for seeds in (1, 5):
        share = false_headlines(options.repeats, seeds=seeds)
        print(f"16 layers without a difference, {seeds} seeds: a headline claims one in {share:.3f} of reports")
    for until in (6.0, 7.0, 8.0):
        found = stopped(options.repeats, until=until)
        print(f"stopped at a width of {until:g}: {found['coverage']:.3f} covered, after {found['seeds']:.1f} seeds")
    if options.csv:
        write_text(options.csv, csv_of(rows), force=True)


if __name__ == "__main__":
    main()
