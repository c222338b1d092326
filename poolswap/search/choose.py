"""A choice of at most one operator a site, under a budget: greedy, for effects that add up."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field


class Budget(BaseModel):
    """What all replacements together may cost.

    `max_drop` is in percentage points of top-1; `latency` and `params` are multiples of the stock model's time of a
    forward and of its parameters. None: as much as it takes.
    """

    model_config = ConfigDict(frozen=True)

    max_drop: float = Field(ge=0, le=100)
    latency: float | None = Field(default=None, gt=0)
    params: float | None = Field(default=None, gt=0)


class Candidate(BaseModel):
    """One operator at one site, alone: what it gains, and what it costs.

    `value` is the gain in what is searched for. `top1` is the change in percentage points, `latency` and `params` are
    what is added to 1: shares of the stock model's. `seeds` is how many trials say so.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    to: str
    value: float
    top1: float
    latency: float
    params: float
    seeds: int


def choose(candidates: Iterable[Candidate], budget: Budget) -> tuple[Candidate, ...]:
    """Candidates of positive value, each site once: the most valuable first, unless it leaves the budget.

    Takes it that effects add up, which the combination has to be measured for. One that did not fit is tried again
    where another made room.
    """
    waiting = sorted((one for one in candidates if one.value > 0), key=lambda one: (-one.value, one.path, one.to))
    chosen: list[Candidate] = []
    while fitting := next((one for one in waiting if fits([*chosen, one], budget)), None):
        chosen.append(fitting)
        waiting = [one for one in waiting if one.path != fitting.path]
    return tuple(chosen)


def fits(chosen: Iterable[Candidate], budget: Budget) -> bool:
    """Whether the costs of these add up to no more than the budget. A gain of one site pays for no loss of another."""
    chosen = list(chosen)
    drop = sum(max(-one.top1, 0.0) for one in chosen)
    latency, params = (1 + sum(getattr(one, name) for one in chosen) for name in ("latency", "params"))
    limits = ((drop, budget.max_drop), (latency, budget.latency), (params, budget.params))
    return all(limit is None or spent <= limit for spent, limit in limits)
