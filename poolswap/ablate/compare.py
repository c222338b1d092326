"""Two sets of records, image by image -> what differs of each measure, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from poolswap.ablate.record import Array, Numbers, Record, miscalibration
from poolswap.ablate.stats import Difference, Interval, Verdict, joint_level, verdict

_KEPT = 32  # records whose columns are kept: a control meets every variant


class Measure(NamedTuple):
    """What is compared. `sign` is -1 where less is better; `factor` makes the unit of an image's value.

    `scale` is how much an image can differ, `bound` how much the mean can, both in that unit.
    """

    title: str
    unit: str
    sign: int
    factor: float = 1.0
    scale: float | None = None
    bound: float = math.inf


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "top1": Measure("top-1", "points", 1, 100, 100, 100),
        "loss": Measure("loss", "nats", -1),
        "logit_margin": Measure("margin", "nats", 1),
        "ece": Measure("calibration error", "points", -1, 100, bound=100),
        "shift": Measure("shift consistency", "points", 1, 100, 100, 100),
    }
)


class Compared(BaseModel):
    """One measure of a variant less its control's.

    `low` and `high` are the ends of the interval of this row alone, `joint_low` and `joint_high` of those which hold
    for all rows of the report at once; each with its verdict. `detectable` and `joint_detectable` are the smallest true
    difference that this many seeds and images show four times out of five. `noise_` are the standard deviations of one
    seed, of one image or group, and of an image in one seed beside both (`poolswap.ablate.stats.Noise`).
    """

    model_config = ConfigDict(frozen=True)

    delta: float
    low: float
    high: float
    verdict: Verdict
    joint_low: float
    joint_high: float
    joint_verdict: Verdict
    detectable: float
    joint_detectable: float
    noise_seeds: float
    noise_images: float
    noise_both: float


class Family(NamedTuple):
    """The comparisons of one report: how often their intervals hold, how many there are, what does not matter."""

    level: float
    rows: int
    margin: float

    @property
    def together(self) -> str:
        """What an interval that serves for words holds for."""
        return "the one row" if self.rows == 1 else f"all {self.rows} rows at once"


def differences(pairs: Sequence[tuple[Record, Record]], blocks: Numbers | None) -> dict[str, Difference]:
    """The difference of each measure that both records of every pair have; pairs are (variant, control) of one seed."""
    mine, theirs = zip(*((columns(a), columns(b)) for a, b in pairs), strict=True)
    found = {}
    for name, measure in MEASURES.items():
        if all(name in each for each in (*mine, *theirs)):
            control = np.stack([each[name] for each in theirs])
            table = np.stack([each[name] for each in mine]) - control
            scale = measure.scale or float(np.abs(table).max()) or float(control.std()) or measure.factor
            found[name] = Difference.of(table, blocks, scale=scale, bound=measure.bound)
    return found


def judge(name: str, difference: Difference, family: Family, *, seeds: int, deterministic: bool) -> Compared:
    """The measure's intervals and verdicts.

    Top-1 is what reports are about: its intervals hold at once over the rows. Those of the other measures hold at once
    over the rows and one another.
    """
    primary = name == "top1"
    rows = family.rows if primary else family.rows * (len(MEASURES) - 1)
    own = difference.interval(family.level)
    strict = joint_level(family.level, rows)
    joint = difference.interval(strict)

    def said(interval: Interval) -> Verdict:
        return verdict(
            interval,
            seeds=seeds,
            deterministic=deterministic,
            margin=family.margin if primary else None,
            sign=MEASURES[name].sign,
        )

    return Compared(
        delta=own.mean,
        low=own.low,
        high=own.high,
        verdict=said(own),
        joint_low=joint.low,
        joint_high=joint.high,
        joint_verdict=said(joint),
        detectable=difference.detectable(family.level),
        joint_detectable=difference.detectable(strict),
        noise_seeds=difference.noise.seeds**0.5,
        noise_images=difference.noise.images**0.5,
        noise_both=difference.noise.both**0.5,
    )


@lru_cache(maxsize=_KEPT)
def columns(record: Record) -> dict[str, Array]:
    """What each image contributes to each measure that the record has, in the measure's unit."""
    found = {
        "top1": record.values("correct"),
        "loss": record.values("loss"),
        "logit_margin": record.values("margin"),
        "ece": miscalibration(record.values("confidence"), record.values("correct")),
    }
    if record.steady is not None:
        found["shift"] = record.values("steady")
    return {name: MEASURES[name].factor * column for name, column in found.items()}
