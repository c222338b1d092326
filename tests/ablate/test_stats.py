"""Intervals cover as often as they say, are never empty, and a verdict says no more than its interval."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from poolswap.ablate.stats import Difference, Interval, Verdict, joint_level, mean_std, student, unseen, verdict

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from interval_coverage import CASES, coverage, false_headlines, stopped

# What three seeds, or ten, cannot show: the documentation says so, and how little is covered.
NOT_COVERED = ("one seed in ten collapses", "blocks of 10, as single images")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("seeds", [3, 10])
def test_the_interval_covers_as_often_as_it_says(case, seeds):
    """Of 150 repeats: below 0.90 would be rarer than one in 200 if it were 0.95."""
    covered = coverage(case, seeds, 150, usual=False)["coverage"]
    if case.name in NOT_COVERED:
        assert covered < 0.97
    else:
        assert covered >= (0.88 if "skewed" in case.name else 0.90)


def test_sixteen_layers_without_a_difference_seldom_make_a_headline():
    assert false_headlines(150, rows=16, seeds=1) <= 0.06
    assert false_headlines(100, rows=16, seeds=3) <= 0.06


def test_an_interval_that_was_waited_for_covers():
    assert stopped(150)["coverage"] >= 0.93


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 199, 200, 201, 359, 50_000])
def test_students_quantiles_are_those_of_scipy(df):
    for level in (0.6, 0.95, 0.99, 0.9999, 1 - 1e-6):
        assert student(level, df) == pytest.approx(scipy_stats.t.ppf((1 + level) / 2, df), rel=1e-6)


def test_where_only_seeds_differ_it_is_students():
    each = np.array([0.2, -0.1, 0.4, 0.3, 0.0])
    difference = Difference.of(np.repeat(each[:, None], 1000, axis=1), scale=1e-9)
    expected = scipy_stats.t.interval(0.95, 4, each.mean(), scipy_stats.sem(each))
    assert difference.interval()[1:] == pytest.approx(expected, rel=1e-2)


def test_with_one_seed_it_is_that_of_bonett_and_price():
    """Their (n12 + 1 - n21 - 1) / (n + 2) and its Wald interval, here with Student's t."""
    table = np.zeros((1, 400))
    table[0, :40], table[0, 40:52] = 1, -1
    p, q = 41 / 402, 13 / 402
    half = 1.96 * math.sqrt((p + q - (p - q) ** 2) / 402)
    low, high = Difference.of(table, scale=1).interval()[1:]
    assert low == pytest.approx(p - q - half, abs=5e-4)
    assert high >= p - q + half - 1e-9


def test_it_is_as_wide_as_an_own_bootstrap_of_blocks():
    """An independent oracle: blocks drawn anew, percentiles."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(80), rng.integers(1, 9, 80))
    table = 0.1 * rng.normal(size=80)[blocks] + 0.05 * rng.normal(size=len(blocks))
    drawn = []
    members = [table[blocks == n] for n in range(80)]
    for _ in range(2000):
        drawn.append(np.concatenate([members[n] for n in rng.integers(80, size=80)]).mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    own = Difference.of(table[None], blocks, scale=1e-9).interval()
    assert own.high - own.low == pytest.approx(high - low, rel=0.12)
    assert own.low == pytest.approx(low, abs=0.1 * (high - low))
    shuffled = rng.permutation(len(blocks))
    assert Difference.of(table[None, shuffled], blocks[shuffled], scale=1e-9).interval() == pytest.approx(own)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (3, 10), (5, 360), (1, 50_000)])
def test_no_interval_is_empty(shape):
    interval = Difference.of(np.zeros(shape), scale=1, bound=1).interval()
    assert -1 <= interval.low < 0 < interval.high <= 1
    assert interval.high > 3 / (shape[1] + 2) * 0.6 or shape[1] < 3


def test_no_change_among_n_images_still_allows_three_in_n():
    """The rule of three says 0.83 of 100 points for 360 images, two-sided 1.02."""
    assert Difference.of(np.zeros((5, 360)), scale=100).interval().high == pytest.approx(0.77, abs=0.02)


def test_a_single_block_of_all_images_says_nothing_beyond_its_guard():
    interval = Difference.of(np.full((3, 10), 0.5), np.zeros(10), scale=1, bound=1).interval()
    assert interval.low <= 0 < 0.5 <= interval.high


def test_a_real_effect_is_seen_and_a_larger_one_than_could_be_missed():
    rng = np.random.default_rng(0)
    table = 100.0 * (rng.random((5, 2000)) < 0.1)
    difference = Difference.of(table, scale=100)
    assert verdict(difference.interval(), seeds=5, deterministic=False) is Verdict.BETTER
    assert 0 < difference.detectable() < 10


def test_the_detectable_difference_is_found_four_times_out_of_five():
    rng = np.random.default_rng(1)
    null = rng.normal(0, 1, (200, 6, 100)) + rng.normal(0, 0.3, (200, 6, 1))
    effect = np.mean([Difference.of(table, scale=1e-9).detectable() for table in null])
    seen = np.mean([Difference.of(table + effect, scale=1e-9).interval().low > 0 for table in null])
    assert 0.7 <= seen <= 0.92


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.1, 2, Verdict.BETTER),
        (-2, -0.1, Verdict.WORSE),
        (-0.4, -0.1, Verdict.WITHIN),
        (-0.5, 2, Verdict.NO_WORSE),
        (-0.6, 2, Verdict.OPEN),
        (0, 2, Verdict.NO_WORSE),
    ],
)
def test_the_verdict_is_the_intervals(low, high, said):
    interval = Interval((low + high) / 2, low, high)
    assert verdict(interval, seeds=3, deterministic=False, margin=0.5) is said
    mirrored = Interval(-interval.mean, -high, -low)
    assert verdict(mirrored, seeds=3, deterministic=False, margin=0.5, sign=-1) is said


def test_without_a_margin_nothing_is_no_worse():
    assert verdict(Interval(0, -1e-9, 1e-9), seeds=9, deterministic=False) is Verdict.OPEN


def test_verdicts_name_their_margin():
    assert Verdict.NO_WORSE.say(0.5) == "no worse than 0.5"
    assert Verdict.WITHIN.say(0.5) == "worse by less than 0.5"
    assert Verdict.OPEN.say(0.5) == "open"


def test_training_once_allows_no_verdict():
    assert verdict(Interval(1, 0.5, 1.5), seeds=1, deterministic=False) is Verdict.ONE_SEED
    assert verdict(Interval(1, 0.5, 1.5), seeds=1, deterministic=True) is Verdict.BETTER


def test_levels_and_what_seeds_do_not_see():
    assert joint_level(0.95, 10) == pytest.approx(0.995)
    assert joint_level(0.95, 0) == 0.95
    assert unseen(3) == pytest.approx(0.63, abs=0.01)
    assert unseen(10) == pytest.approx(0.26, abs=0.01)


def test_mean_and_deviation():
    assert mean_std([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_std([4.0]) == (4.0, None)
