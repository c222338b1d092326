"""Comparisons of degenerate and hostile records: an interval is never empty, and says nothing that was not seen."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from poolswap.ablate.compare import MEASURES, Family, columns, differences, judge
from poolswap.ablate.record import Record, miscalibration
from poolswap.ablate.stats import Verdict
from poolswap.adapt import Answers

FAMILY = Family(0.95, 3, 0.5)


def record(right, loss=0.5, confidence=0.8, steady=True, **others):
    right = torch.as_tensor(right)
    like = torch.ones(len(right))
    margin = torch.where(right, 1.0, -1.0)
    kept = torch.full_like(right, steady) if steady is not None else None
    return Record.of([Answers(right, loss * like, margin, confidence * like, kept)], **others)


def judged(pairs, blocks=None, deterministic=False):
    found = differences(pairs, blocks)
    return {n: judge(n, d, FAMILY, seeds=len(pairs), deterministic=deterministic) for n, d in found.items()}


@pytest.mark.parametrize("images", [1, 2, 7, 360])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("seeds", [1, 5])
def test_models_that_agree_on_everything_are_open_and_not_the_same(images, right, seeds):
    same = record([right] * images)
    for name, found in judged([(same, same)] * seeds, deterministic=seeds == 1).items():
        assert found.low < 0 == found.delta < found.high, name
        assert found.joint_low <= found.low
        assert found.joint_high >= found.high
        assert all(map(math.isfinite, (found.low, found.high, found.detectable, found.joint_detectable)))
        assert found.verdict in (Verdict.OPEN, Verdict.NO_WORSE)
    top1 = judged([(same, same)])["top1"]
    assert -100 <= top1.low <= -100 * 2.5 / (images + 4)  # about what the rule of three allows


def test_all_right_against_all_wrong_is_as_far_as_it_can_be():
    found = judged([(record([False] * 50), record([True] * 50))] * 3)
    assert found["top1"].delta == -100
    assert found["top1"].low == -100
    assert found["top1"].verdict is Verdict.WORSE


def test_a_measure_that_one_side_lacks_is_left_out():
    found = differences([(record([True, False], steady=None), record([True, False]))], None)
    assert set(found) == set(MEASURES) - {"shift"}


def test_huge_losses_stay_finite():
    far = judged([(record([False] * 9, loss=3e38), record([True] * 9))] * 2)
    assert all(math.isfinite(found.low) and math.isfinite(found.high) for found in far.values())


def test_values_that_are_not_finite_are_no_record():
    with pytest.raises(ValidationError, match="not finite"):
        record([True, False], loss=float("nan"))
    with pytest.raises(ValidationError):
        Record(**{**record([True]).model_dump(), "images": 9})


def test_a_record_gives_back_what_it_was_given():
    rng = np.random.default_rng(0)
    right = torch.from_numpy(rng.random(13) < 0.5)
    kept = record(right, unread=[3])
    assert kept.values("correct").tolist() == right.double().tolist()
    assert Record.model_validate_json(kept.model_dump_json()) == kept
    assert kept.unread == (3,)
    with pytest.raises(KeyError):
        record(right, steady=None).values("steady")
    assert set(columns(kept)) == set(MEASURES)


def test_the_calibration_error_is_a_mean_over_images():
    rng = np.random.default_rng(1)
    confidence, correct = rng.random(500), (rng.random(500) < 0.7) * 1.0
    bins = np.minimum((confidence.astype(np.float32) * np.float32(15)).astype(int), 14)
    by_hand = sum(abs((confidence - correct)[bins == n].sum()) for n in range(15)) / 500
    assert miscalibration(confidence, correct).mean() == pytest.approx(by_hand)
