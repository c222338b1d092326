"""Runs folders -> the numbers of the report: one row for every variant, over its seeds, beside its control."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from poolswap.ablate.costs import PASSES, PooledCost, pool
from poolswap.ablate.grid import Cell, Grid, Layer
from poolswap.ablate.runs import Result, RunFolder
from poolswap.ablate.stats import Verdict, mean_std, paired_interval, verdict
from poolswap.ablate.study import Adapt, Study
from poolswap.errors import InputError

_Architecture = tuple[str | None, tuple[str, ...]]
_Variant = tuple[int, str | None, str | None, Adapt, tuple[str, ...]]


class Row(BaseModel):
    """One variant, or a control (`layers` 0). Accuracies in percent, differences in percentage points.

    `_delta` is against the control, seed by seed; `top1_low` and `top1_high` the 95% interval of `top1_delta`.
    `seeds` counts the trials that ended well, `failed` and `missing` the others. `costs` are of the architecture, by
    pass (`poolswap.ablate.costs.pool`): the same for every adaptation.
    """

    model_config = ConfigDict(frozen=True)

    layers: int
    order: str | None
    to: str | None
    adapt: Adapt
    paths: tuple[str, ...]
    seeds: int = 0
    failed: int = 0
    missing: int = 0
    top1: float | None = None
    top1_std: float | None = None
    top1_delta: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    verdict: Verdict | None = None
    top5: float | None = None
    loss: float | None = None
    loss_delta: float | None = None
    shift_consistency: float | None = None
    shift_delta: float | None = None
    costs: dict[str, PooledCost] = {}
    parameters: int | None = None
    drift: float | None = None
    each_top1: tuple[float, ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether nothing is replaced."""
        return self.layers == 0

    @property
    def name(self) -> str:
        """The variant in a few words."""
        if self.is_control:
            return "control"
        where = f"{self.paths[0]} alone" if self.order == "single" else f"{self.order} {self.layers}"
        return f"{self.to}, {where}"

    def columns(self) -> dict[str, object]:
        """The row as flat columns, for CSV and for checks."""
        document = self.model_dump(mode="json", exclude={"each_top1", "costs"})
        costs = {
            f"{name}_{field}": getattr(self.costs.get(name), field, None)
            for name in PASSES
            for field in PooledCost.model_fields
        }
        return {**document, "paths": " ".join(self.paths), **costs}


class Strip(BaseModel):
    """One picture of the network: a value for each of its layers."""

    model_config = ConfigDict(frozen=True)

    title: str
    kind: Literal["delta", "drift"]
    values: tuple[float | None, ...]


class Problem(BaseModel):
    """A trial that failed."""

    model_config = ConfigDict(frozen=True)

    key: str
    what: str
    error: str
    traceback: str


class Summary(BaseModel):
    """Everything that a report says."""

    model_config = ConfigDict(frozen=True)

    study: Study
    layers: tuple[Layer, ...]
    rows: tuple[Row, ...]
    strips: tuple[Strip, ...]
    problems: tuple[Problem, ...]
    environments: tuple[dict[str, Any], ...]
    trials: int
    finished: int
    images: int | None
    hours: float

    @property
    def variants(self) -> list[dict[str, object]]:
        """The rows that are no controls, as columns."""
        return [row.columns() for row in self.rows if not row.is_control]


def summarise(folders: Sequence[RunFolder]) -> Summary:
    """The summary of one run, or of the shards of one run in several folders. Raises InputError."""
    study, grid = folders[0].study(), folders[0].grid()
    for other in folders[1:]:
        if other.grid().trials.keys() != grid.trials.keys():
            raise InputError(
                f"{folders[0].path} and {other.path} are of different studies",
                "report on shards of one study at a time",
            )
    results = {key: found for key in grid.trials if (found := _first(folders, key)) is not None}
    if len({result.record.images for result in results.values()}) > 1:
        raise InputError(f"the results in {folders[0].path} are of different images", "run poolswap ablate again")
    problems = _problems(folders, grid, results)
    rows = _rows(grid, results, {problem.key for problem in problems})
    environments = {json.dumps(result.environment, sort_keys=True): result.environment for result in results.values()}
    return Summary(
        study=study,
        layers=grid.layers,
        rows=tuple(rows),
        strips=tuple(_strips(grid, rows, results)),
        problems=problems,
        environments=tuple(environments.values()),
        trials=len(grid.trials),
        finished=len(results),
        images=next((result.record.images for result in results.values()), None),
        hours=sum(result.seconds for result in results.values()) / 3600,
    )


def _first(folders: Iterable[RunFolder], key: str) -> Result | None:
    return next((result for folder in folders if (result := folder.result(key)) is not None), None)


def _problems(folders: Iterable[RunFolder], grid: Grid, results: Mapping[str, Result]) -> tuple[Problem, ...]:
    found = {}
    for folder in folders:
        for cell in grid.cells:
            failure = folder.failure(cell.key) if cell.key not in results else None
            if failure is not None:
                row = Row(layers=cell.layers, order=cell.order, to=cell.to, adapt=cell.adapt, paths=cell.paths)
                what = f"{row.name}, {cell.adapt}, seed {cell.seed}"
                found[cell.key] = Problem(key=cell.key, what=what, error=failure.error, traceback=failure.traceback)
    return tuple(found.values())


def _rows(grid: Grid, results: Mapping[str, Result], failed: set[str]) -> list[Row]:
    variants: dict[_Variant, list[Cell]] = {}
    for cell in grid.cells:
        variants.setdefault((cell.layers, cell.order, cell.to, cell.adapt, cell.paths), []).append(cell)
    controls = {
        adapt: {cell.seed: results[cell.key] for cell in cells if cell.key in results}
        for (layers, _, _, adapt, _), cells in variants.items()
        if layers == 0
    }
    costs = _costs(grid, results)
    return [_row(cells, controls[cells[0].adapt], results, failed, costs) for cells in variants.values()]


def _costs(grid: Grid, results: Mapping[str, Result]) -> dict[_Architecture, dict[str, PooledCost]]:
    """What each architecture costs: its trials differ in adaptation and seed, which change no time."""
    keys: dict[_Architecture, set[str]] = {}
    for cell in grid.cells:
        if cell.key in results:
            keys.setdefault((cell.to, cell.paths), set()).add(cell.key)
    return {which: pool(results[key].costs for key in sorted(mine)) for which, mine in keys.items()}


def _row(
    cells: list[Cell],
    control: Mapping[int, Result],
    results: Mapping[str, Result],
    failed: set[str],
    costs: Mapping[_Architecture, dict[str, PooledCost]],
) -> Row:
    cell = cells[0]
    mine = {c.seed: results[c.key] for c in cells if c.key in results}
    fields: dict[str, Any] = {
        "layers": cell.layers,
        "order": cell.order,
        "to": cell.to,
        "adapt": cell.adapt,
        "paths": cell.paths,
        "seeds": len(mine),
        "failed": sum(c.key in failed for c in cells),
        "missing": sum(c.key not in failed and c.key not in results for c in cells),
    }
    if not mine:
        return Row(**fields)
    own = list(mine.values())
    each = tuple(result.top1 for result in own)
    top1, std = mean_std(each)
    fields |= {"top1": top1, "top1_std": std, "each_top1": each, "parameters": own[0].parameters}
    fields |= {name: _mean([getattr(result, name) for result in own]) for name in _MEANS}
    fields["costs"] = costs[cell.to, cell.paths]
    if cell.layers:
        fields |= _against([(mine[seed], control[seed]) for seed in mine if seed in control], cell.adapt)
    return Row(**fields)


_MEANS = ("top5", "loss", "shift_consistency", "drift")


def _against(pairs: list[tuple[Result, Result]], adapt: Adapt) -> dict[str, Any]:
    """The differences to the control of the same seed; nothing where no seed has both."""
    if not pairs:
        return {}
    table = np.stack([100 * (a.record.values("correct") - b.record.values("correct")) for a, b in pairs])
    interval = paired_interval(table)
    return {
        "top1_delta": interval.mean,
        "top1_low": interval.low,
        "top1_high": interval.high,
        "verdict": verdict(interval, seeds=len(pairs), deterministic=adapt == "none"),
        "loss_delta": _mean([a.loss - b.loss for a, b in pairs]),
        "shift_delta": _mean(
            [
                None
                if a.shift_consistency is None or b.shift_consistency is None
                else a.shift_consistency - b.shift_consistency
                for a, b in pairs
            ]
        ),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) and known else None


def _strips(grid: Grid, rows: Sequence[Row], results: Mapping[str, Result]) -> list[Strip]:
    """Accuracy of each layer replaced alone, where the study asked for it; else each layer's own drift."""
    alone = [row for row in rows if row.order == "single"]
    strips = []
    for to, adapt in dict.fromkeys((row.to, row.adapt) for row in alone):
        values = {row.paths[0]: row.top1_delta for row in alone if (row.to, row.adapt) == (to, adapt)}
        strips.append(
            Strip(
                title=f"top-1 change, each layer alone: {to}, {adapt}",
                kind="delta",
                values=tuple(values.get(layer.path) for layer in grid.layers),
            )
        )
    if strips:
        return strips
    for to in dict.fromkeys(cell.to for cell in grid.cells if cell.to):
        cells = [cell for cell in grid.cells if cell.to == to and cell.key in results]
        moved: dict[str, float | None] = {}
        for cell in sorted(cells, key=lambda cell: (cell.adapt == "scratch", -cell.layers)):
            for site in results[cell.key].sites:
                moved.setdefault(site.path, site.local)
        if moved:
            title = f"relative change of each layer's output before adaptation: {to}"
            strips.append(
                Strip(title=title, kind="drift", values=tuple(moved.get(layer.path) for layer in grid.layers))
            )
    return strips
