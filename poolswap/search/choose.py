"""A choice of at most one operator a site, under a budget: greedy, for effects that add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from poolswap.settings import Settings


class Budget(Settings):
    """What all replacements together may cost; `Budget.make` says in words what is wrong with one.

    `max_drop` is in percentage points of top-1; `latency` and `params` are multiples of the stock model's time of a
    forward and of its parameters. None: as much as it takes.
    """

    noun: ClassVar[str] = "budget"
    example: ClassVar[str] = "max_drop=0.3"

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

    Where that does not bring the whole into a budget below the stock model's time, those that save most come first.
    Takes it that effects add up, which the combination has to be measured for. One that did not fit is tried again
    where another made room. Empty where nothing fits.
    """
    valuable = [one for one in candidates if one.value > 0]
    by_value, by_saving = (lambda one: (-one.value, one.path, one.to)), (lambda one: (one.latency, one.path, one.to))
    found = (_greedy(sorted(valuable, key=order), budget) for order in (by_value, by_saving))
    return next((chosen for chosen in found if fits(chosen, budget)), ())


def _greedy(waiting: list[Candidate], budget: Budget) -> tuple[Candidate, ...]:
    """The first that leaves no limit, or spends nothing of one that is left already, and so on."""
    chosen: list[Candidate] = []
    while fitting := next((one for one in waiting if _may_join(one, chosen, budget)), None):
        chosen.append(fitting)
        waiting = [one for one in waiting if one.path != fitting.path]
    return tuple(chosen)


def _may_join(one: Candidate, chosen: Sequence[Candidate], budget: Budget) -> bool:
    before, after = _spent(chosen), _spent([*chosen, one])
    return all(
        limit is None or spent <= max(limit, was)
        for spent, was, limit in zip(after, before, _limits(budget), strict=True)
    )


def fits(chosen: Iterable[Candidate], budget: Budget) -> bool:
    """Whether the costs of these add up to no more than the budget. A gain of one site pays for no loss of another."""
    return all(limit is None or spent <= limit for spent, limit in zip(_spent(chosen), _limits(budget), strict=True))


def _spent(chosen: Iterable[Candidate]) -> tuple[float, float, float]:
    """What these lose of top-1, and their time and parameters: added up, as multiples of the stock model's."""
    chosen = list(chosen)
    latency, params = (1 + sum(getattr(one, name) for one in chosen) for name in ("latency", "params"))
    return sum(max(-one.top1, 0.0) for one in chosen), latency, params


def _limits(budget: Budget) -> tuple[float | None, ...]:
    return budget.max_drop, budget.latency, budget.params
