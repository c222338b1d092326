"""Intervals cover as often as they say, and a verdict says no more than its interval."""

import math

import numpy as np
import pytest

from poolswap.ablate.stats import Interval, Verdict, mean_std, paired_interval, verdict


def simulated(rng, seeds, images, effect):
    """Differences in {-1, 0, 1}: each seed has its own chance of gaining, all of losing the same."""
    gain = np.clip(0.04 + effect + rng.normal(0, 0.015, seeds), 0, 1)
    return (rng.random((seeds, images)) < gain[:, None]) * 1.0 - (rng.random((seeds, images)) < 0.04)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_interval_covers_at_least_as_often_as_it_says(seeds):
    rng = np.random.default_rng(seeds)
    intervals = [paired_interval(simulated(rng, seeds, 300, 0.0)) for _ in range(200)]
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) >= 0.95


def test_percentiles_of_three_seeds_alone_would_not_cover():
    """Why the seeds' deviations are widened."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(0, 1, 3) for _ in range(300)]
    drawn = [t[rng.integers(3, size=(2000, 3))].mean(1) for t in tables]
    assert np.mean([np.quantile(d, 0.025) <= 0 <= np.quantile(d, 0.975) for d in drawn]) < 0.85


def test_where_only_seeds_differ_it_is_close_to_students_t():
    each = np.array([0.2, -0.1, 0.4, 0.3, 0.0])
    interval = paired_interval(np.repeat(each[:, None], 100, axis=1))
    half = 2.7764 * each.std(ddof=1) / math.sqrt(5)
    assert interval.mean == pytest.approx(each.mean())
    assert interval.high - interval.mean == pytest.approx(half, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.1)


def test_with_one_seed_it_is_that_of_the_images():
    table = np.zeros((1, 400))
    table[0, :40] = 1
    interval = paired_interval(table)
    assert interval.high - interval.mean == pytest.approx(1.96 * math.sqrt(0.1 * 0.9 / 400), rel=0.1)


def test_a_real_effect_is_seen():
    interval = paired_interval(simulated(np.random.default_rng(0), 5, 2000, 0.1))
    assert interval.low > 0
    assert verdict(interval, seeds=5, deterministic=False) is Verdict.BETTER


def test_the_same_table_gives_the_same_interval():
    table = simulated(np.random.default_rng(0), 3, 100, 0.0)
    assert paired_interval(table) == paired_interval(table)


def test_no_difference_at_all_has_no_width():
    assert paired_interval(np.zeros((3, 10))) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 2, Verdict.BETTER), (-2, -0.1, Verdict.WORSE), (-0.1, 2, Verdict.SAME), (0, 2, Verdict.SAME)],
)
def test_the_verdict_is_the_intervals(low, high, said):
    assert verdict(Interval((low + high) / 2, low, high), seeds=3, deterministic=False) is said


def test_training_once_allows_no_verdict():
    assert verdict(Interval(1, 0.5, 1.5), seeds=1, deterministic=False) is Verdict.OPEN
    assert verdict(Interval(1, 0.5, 1.5), seeds=1, deterministic=True) is Verdict.BETTER


def test_mean_and_deviation():
    assert mean_std([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_std([4.0]) == (4.0, None)
