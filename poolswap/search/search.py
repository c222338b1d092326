"""The search: every operator at every site alone, a choice under the budget, the choice measured, then judged once.

Everything is measured by the trials of `poolswap.ablate`, in a runs folder as `ablate` makes it: a search that was
ended goes on, and what an earlier study measured of the same trials is used. `poolswap report` shows all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from poolswap.ablate.compare import MEASURES
from poolswap.ablate.grid import Grid, grid_of
from poolswap.ablate.mix import mix_text
from poolswap.ablate.report.summary import Row, summarise
from poolswap.ablate.run import Engine, run_trials
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.stats import Interval
from poolswap.ablate.study import Study
from poolswap.ablate.trial import groups_of, load, plan_of
from poolswap.errors import CheckError, InputError
from poolswap.load import load_model
from poolswap.operators.registry import parse_operator
from poolswap.search.choose import Budget, Candidate, choose
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools

Goal = Literal["top1", "loss", "shift", "latency"]

TEST = "test"


class Change(BaseModel):
    """A combination against its control on one part of the data, with the 95% intervals of the report.

    `top1` is in percentage points, `value` the gain in what was searched for, in the unit of its measure: of latency
    the share of the time that is saved, without an interval. `latency` and `params` are multiples of the stock model's.
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
        """Whether the test images show a gain in what was searched for."""
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
    pairs = _pairs(base)
    singles = tuple(mix_text({path: to}) for path, to in pairs)
    grid = _measure(runs, base.model_copy(update={"mixes": singles}), engine, "each site alone", seen)
    rows = summarise([runs]).rows
    changes = {(path, to): _change(rows, {path: to}, goal) for path, to in pairs}
    candidates = [_candidate(*pair, change) for pair, change in changes.items() if change is not None]
    failed = {mix_text({p: to}): _why(runs, grid, p, to) for (p, to), change in changes.items() if change is None}
    chosen, dropped, val = list(choose(candidates, budget)), [], None
    while chosen:
        mixes = (*singles, mix_text(_operators(chosen)))
        _measure(runs, base.model_copy(update={"mixes": mixes}), engine, f"{len(chosen)} sites together", seen)
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
    test, grid = _judge(runs, base, _operators(chosen), engine, goal, seen)
    trial = next(grid.trials[cell.key] for cell in grid.cells if cell.layers)
    _, model, spec = load(trial, "cpu")
    return result.model_copy(update={"val": val, "test": test, "plan": plan_of(trial, model, spec)})


def _pairs(study: Study) -> list[tuple[str, str]]:
    """(path, operator) of every site and every operator that replaces its kind."""
    model, spec = load_model(
        study.model,
        num_classes=study.num_classes,
        in_chans=study.in_chans,
        input_size=study.input_size,
        model_args=study.model_args,
        trust_code=study.running.trust_code,
    )
    sites = find_pools(model, spec.input_size)
    whole = make_plan(sites, "all", op=study.op, exclude=study.exclude, include_global=study.include_global)
    scopes = {swap.site.path: swap.site.scope for swap in whole.swaps}
    operators = {to: parse_operator(to)[0] for to in study.operators}
    return [
        (path, to)
        for path, scope in scopes.items()
        for to, operator in operators.items()
        if (operator.window if scope == "window" else operator.head)
    ]


def _measure(runs: RunFolder, study: Study, engine: Engine, what: str, seen: Callable[[str, int, int], None]) -> Grid:
    """Run what has no result yet; returns the study's grid."""
    grid = grid_of(study)
    runs.open(study, grid, groups_of(study))
    pending = {key: trial for key, trial in grid.trials.items() if runs.result(key) is None}
    done = 0

    def count(key: str, outcome: object) -> None:
        nonlocal done
        done += 1
        seen(what, done, len(pending))

    run_trials(runs, pending, engine, seen=count)
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
        saved = 1 - (latency or 1.0)
        value = Interval(saved, saved, saved)
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


def _judge(
    runs: RunFolder,
    base: Study,
    operators: Mapping[str, str],
    engine: Engine,
    goal: Goal,
    seen: Callable[[str, int, int], None],
) -> tuple[Change, Grid]:
    """The combination on the test images, in a folder of its own that has judged no other one."""
    folder = RunFolder(runs.path / TEST)
    asked = base.model_copy(update={"split": TEST, "mixes": (mix_text(operators),)})
    if (folder.path / "grid.json").exists() and folder.grid().trials.keys() != grid_of(asked).trials.keys():
        raise InputError(
            f"the test images of {runs.path} have judged another choice already",
            "a second choice needs test images of its own",
        )
    grid = _measure(folder, asked, engine, "the test images", seen)
    change = _change(summarise([folder]).rows, operators, goal)
    if change is None:
        raise CheckError("no trial of the chosen combination ended well on the test images", f"see {folder.path}")
    return change, grid
