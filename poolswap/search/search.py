"""The search: every operator at every site alone, a choice under the budget, the choice measured, then judged once.

Everything is measured by the trials of `poolswap.ablate`, in a runs folder as `ablate` makes it: a search that was
ended goes on, and what an earlier study measured of the same trials is used. `poolswap report` shows all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from poolswap.ablate.compare import MEASURES
from poolswap.ablate.confirm import TEST, judge_of
from poolswap.ablate.costs import PooledCost
from poolswap.ablate.grid import Grid, contents_of, make_grid, replaceable, sites_of
from poolswap.ablate.mix import mix_text
from poolswap.ablate.report.summary import Row, summarise
from poolswap.ablate.run import Engine, run_trials
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.stats import Interval
from poolswap.ablate.study import Study
from poolswap.ablate.trial import groups_of, load, plan_of
from poolswap.errors import CheckError, InputError
from poolswap.operators.registry import parse_operator
from poolswap.search.choose import Budget, Candidate, choose
from poolswap.surgery.plan import Plan
from poolswap.surgery.sites import PoolSite

Goal = Literal["top1", "loss", "shift", "latency"]


class Change(BaseModel):
    """A combination against its control on one part of the data, with the 95% intervals of the report.

    `top1` is in percentage points, `value` the gain in what was searched for, in the unit of its measure. Of latency
    that is the share of the time that is saved, and its ends are no 95% interval but the quartiles of the rounds, each
    further out by the control's noise. `latency` and `params` are multiples of the stock model's.
    """

    model_config = ConfigDict(frozen=True)

    top1: Interval
    value: Interval
    latency: float | None
    params: float
    seeds: int


class Found(BaseModel):
    """What a search found: each operator at each site, what was chosen of them, and what that is worth.

    `val` is of the images it was chosen on, so it flatters; `test` of images that nothing had seen. `failed` says why a
    replacement could not be measured. Without a `chosen` there was nothing to find.
    """

    model_config = ConfigDict(frozen=True)

    goal: Goal
    budget: Budget
    candidates: tuple[Candidate, ...]
    failed: dict[str, str]
    chosen: tuple[Candidate, ...]
    dropped: tuple[Candidate, ...]
    val: Change | None = None
    test: Change | None = None
    plan: Plan | None = None

    @property
    def holds(self) -> bool:
        """Whether the test images exclude, with 95% confidence, a loss of more than the budget allows."""
        return self.test is not None and self.test.top1.low >= -self.budget.max_drop

    @property
    def gains(self) -> bool:
        """Whether the trials on the test images show a gain in what was searched for."""
        return self.test is not None and self.test.value.low > 0


def search(
    folder: Path | str,
    study: Study,
    budget: Budget,
    engine: Engine,
    *,
    goal: Goal = "top1",
    seen: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Found:
    """Search the study's operators for the plan that gains most of `goal` within the budget, and judge it once.

    Of the study, `counts`, `order` and `mixes` are the search's own; `adapt` is one. Sites are measured one at a time
    on the validation images, the most valuable are put together, and the least valuable is taken out again while the
    whole does not stay in the budget. Only then are the test images looked at, in FOLDER/test, and only once: a later
    search there that chooses otherwise is refused. `seen` is told what is measured and how far it is.

    Raises InputError for a study that cannot be searched, NothingToReplaceError where the model has no site, CheckError
    where the control fails.
    """
    if len(study.adapt) != 1:
        raise InputError("a search adapts in one way", "give one of them: adapt='recalibrate'")
    runs, base = RunFolder(folder), study.model_copy(update={"counts": "0", "order": ("forward",), "mixes": ()})
    measure = _Measuring(base, engine, seen)
    pairs = _pairs(base, measure.sites)
    singles = tuple(mix_text({path: to}) for path, to in pairs)
    grid = measure(runs, singles, "each site alone")
    rows = summarise([runs]).rows
    changes = {(path, to): _change(rows, {path: to}, goal) for path, to in pairs}
    candidates = [_candidate(*pair, change) for pair, change in changes.items() if change is not None]
    failed = {mix_text({p: to}): _why(runs, grid, p, to) for (p, to), change in changes.items() if change is None}
    chosen, dropped, val = list(choose(candidates, budget)), [], None
    while chosen:
        measure(runs, (*singles, mix_text(_operators(chosen))), f"{len(chosen)} sites together")
        val = _change(summarise([runs]).rows, _operators(chosen), goal)
        if val is not None and _keeps(val, budget):
            break
        dropped.append(chosen.pop())
    result = Found(
        goal=goal,
        budget=budget,
        candidates=tuple(candidates),
        failed=failed,
        chosen=tuple(chosen),
        dropped=tuple(dropped),
    )
    if not chosen:
        return result
    judging = _Measuring(base.model_copy(update={"split": TEST}), engine, seen, measure.sites)
    test, grid = _judge(runs, judging, _operators(chosen), goal)
    trial = next(grid.trials[cell.key] for cell in grid.cells if cell.layers)
    _, model, spec = load(trial, "cpu")
    return result.model_copy(update={"val": val, "test": test, "plan": plan_of(trial, model, spec)})


def _pairs(study: Study, sites: Sequence[PoolSite]) -> list[tuple[str, str]]:
    """(path, operator) of every site and every operator that replaces its kind, and is not what is there."""
    operators = {to: parse_operator(to)[0] for to in study.operators}
    return [
        (path, to)
        for path, site in replaceable(study, sites).items()
        for to, operator in operators.items()
        if (operator.window if site.scope == "window" else operator.head) and to != site.op
    ]


class _Measuring:
    """Trials of mixes of one model on one part of the data; the model's sites and the images are looked at once."""

    def __init__(
        self,
        study: Study,
        engine: Engine,
        seen: Callable[[str, int, int], None],
        sites: Sequence[PoolSite] | None = None,
    ) -> None:
        self.study, self.engine, self.seen = study, engine, seen
        self.sites = sites_of(study) if sites is None else sites
        self.contents, self.groups = contents_of(study), groups_of(study)

    def grid(self, mixes: tuple[str, ...]) -> tuple[Study, Grid]:
        """The study of these mixes, and its grid."""
        study = self.study.model_copy(update={"mixes": mixes})
        return study, make_grid(study, self.sites, self.contents)

    def __call__(self, runs: RunFolder, mixes: tuple[str, ...], what: str) -> Grid:
        """Run what has no result yet; returns the grid. Raises CheckError where the control failed."""
        study, grid = self.grid(mixes)
        runs.open(study, grid, self.groups)
        pending = {key: trial for key, trial in grid.trials.items() if runs.result(key) is None}
        ended = count(1)
        run_trials(runs, pending, self.engine, seen=lambda key, outcome: self.seen(what, next(ended), len(pending)))
        for cell in grid.cells:
            if not cell.layers and runs.result(cell.key) is None:
                failure = runs.failure(cell.key)
                raise CheckError(
                    f"the control failed: {failure.error if failure else 'it has no result'}", f"see {runs.path}"
                )
        return grid


def _operators(chosen: Sequence[Candidate]) -> dict[str, str]:
    return {one.path: one.to for one in chosen}


def _row(rows: Sequence[Row], operators: Mapping[str, str]) -> Row | None:
    """The row of this combination, whatever its order."""
    alike = set(operators.values())
    for row in rows:
        same = row.to in alike if len(alike) == 1 else row.to == mix_text({p: operators.get(p, "") for p in row.paths})
        if row.layers and same and set(row.paths) == set(operators):
            return row
    return None


def _change(rows: Sequence[Row], operators: Mapping[str, str], goal: Goal) -> Change | None:
    """The combination beside its control; None where no seed has both."""
    row, control = _row(rows, operators), next(row for row in rows if row.is_control)
    if row is None or not row.compared or row.parameters is None or control.parameters is None:
        return None
    forward = row.costs.get("forward")
    # A ratio closer to 1 than the control is from itself is none.
    latency = None if forward is None else forward.ratio if abs(forward.ratio - 1) > forward.noise else 1.0
    if goal == "latency":
        value = Interval(0, 0, 0) if forward is None or latency is None else _saved(forward, latency)
    else:
        found, sign = row.compared[goal], MEASURES[goal].sign
        low, high = sorted((sign * found.low, sign * found.high))
        value = Interval(sign * found.delta, low, high)
    top1 = row.compared["top1"]
    return Change(
        top1=Interval(top1.delta, top1.low, top1.high),
        value=value,
        latency=latency,
        params=row.parameters / control.parameters,
        seeds=row.paired,
    )


def _saved(forward: PooledCost, latency: float) -> Interval:
    """The share of the time that is saved, and what the rounds' quartiles and the control's noise leave of it."""
    return Interval(1 - latency, 1 - forward.high - forward.noise, 1 - forward.low + forward.noise)


def _candidate(path: str, to: str, change: Change) -> Candidate:
    return Candidate(
        path=path,
        to=to,
        value=change.value.mean,
        top1=change.top1.mean,
        latency=(change.latency or 1.0) - 1,
        params=change.params - 1,
        seeds=change.seeds,
    )


def _why(runs: RunFolder, grid: Grid, path: str, to: str) -> str:
    failures = (runs.failure(cell.key) for cell in grid.cells if cell.paths == (path,) and cell.to == to)
    return next((failure.error for failure in failures if failure is not None), "it has no result")


def _keeps(change: Change, budget: Budget) -> bool:
    """Whether the combination, as it was measured, is of use and stays in the budget."""
    spent = ((change.latency, budget.latency), (change.params, budget.params))
    within = all(limit is None or cost is None or cost <= limit for cost, limit in spent)
    return change.value.mean > 0 and change.top1.mean >= -budget.max_drop and within


def _judge(runs: RunFolder, measure: _Measuring, operators: Mapping[str, str], goal: Goal) -> tuple[Change, Grid]:
    """The combination on the test images, in a folder of its own that has judged no other one."""
    mixes = (mix_text(operators),)
    folder = judge_of(runs, measure.grid(mixes)[1])
    grid = measure(folder, mixes, "the test images")
    change = _change(summarise([folder]).rows, operators, goal)
    if change is None:
        raise CheckError("no trial of the chosen combination ended well on the test images", f"see {folder.path}")
    return change, grid
