"""Runs folders -> the numbers of the report: one row for every variant, over its seeds, beside its control."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from poolswap.ablate.compare import MEASURES, Compared, Family, differences, judge
from poolswap.ablate.costs import PASSES, PooledCost, pool
from poolswap.ablate.grid import Cell, Grid, Layer
from poolswap.ablate.mix import is_mix
from poolswap.ablate.record import Numbers, Record
from poolswap.ablate.runs import Failure, Result, RunFolder
from poolswap.ablate.sequential import level_of
from poolswap.ablate.stats import FEW_SEEDS, mean_std
from poolswap.ablate.study import Adapt, Study
from poolswap.errors import InputError

_Architecture = tuple[str | None, tuple[str, ...]]
_Variant = tuple[int, str | None, str | None, Adapt, tuple[str, ...]]


class Row(BaseModel):
    """One variant, or a control (`layers` 0). Accuracies in percent, differences in percentage points.

    `compared` are the differences to the control, seed by seed and image by image, by measure
    (`poolswap.ablate.compare`); none for a control, or without one. `seeds` counts the trials that ended well, `paired`
    those of them with a control, `failed` and `missing` the others. `costs` are of the architecture, by pass
    (`poolswap.ablate.costs.pool`): the same for every adaptation. `curves` are validation top-1 by epoch, a seed each.
    """

    model_config = ConfigDict(frozen=True)

    layers: int
    order: str | None
    to: str | None
    adapt: Adapt
    paths: tuple[str, ...]
    seeds: int = 0
    paired: int = 0
    failed: int = 0
    missing: int = 0
    incomplete: bool = False
    top1: float | None = None
    top1_std: float | None = None
    top5: float | None = None
    loss: float | None = None
    ece: float | None = None
    shift_consistency: float | None = None
    compared: dict[str, Compared] = {}
    costs: dict[str, PooledCost] = {}
    parameters: int | None = None
    drift: float | None = None
    curves: tuple[tuple[float, ...], ...] = ()

    @property
    def is_control(self) -> bool:
        """Whether nothing is replaced."""
        return self.layers == 0

    @property
    def name(self) -> str:
        """The variant in a few words."""
        if self.is_control:
            return "control"
        if self.to and is_mix(self.to):
            return self.to
        alone = self.order == "single" or (self.order == "mixed" and self.layers == 1)
        where = f"{self.paths[0]} alone" if alone else f"{self.order} {self.layers}"
        return f"{self.to}, {where}"

    @property
    def top1_compared(self) -> Compared | None:
        """The difference of top-1 to the control's."""
        return self.compared.get("top1")

    @property
    def provisional(self) -> bool:
        """Whether it was trained too seldom for its intervals to cover what they say."""
        return self.adapt != "none" and 1 < self.paired < FEW_SEEDS

    def columns(self) -> dict[str, object]:
        """The row as flat columns, for CSV and for checks."""
        document = self.model_dump(mode="json", exclude={"compared", "costs", "curves"})
        compared = {
            f"{name}_{field}": getattr(self.compared.get(name), field, None)
            for name in MEASURES
            for field in Compared.model_fields
        }
        costs = {
            f"{name}_{field}": getattr(self.costs.get(name), field, None)
            for name in PASSES
            for field in PooledCost.model_fields
        }
        return {**document, "paths": " ".join(self.paths), **compared, **costs}


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
    """Everything that a report says.

    `family` is what its intervals hold for; `blocks` is how many groups the `images` are in, None where each stands for
    itself.
    """

    model_config = ConfigDict(frozen=True)

    study: Study
    family: Family
    layers: tuple[Layer, ...]
    rows: tuple[Row, ...]
    strips: tuple[Strip, ...]
    problems: tuple[Problem, ...]
    environments: tuple[dict[str, Any], ...]
    trials: int
    finished: int
    images: int | None
    blocks: int | None
    hours: float

    @property
    def widths(self) -> tuple[float, ...]:
        """How wide the intervals of top-1 are that more seeds would narrow."""
        compared = (row.top1_compared for row in self.rows if row.adapt != "none")
        return tuple(found.high - found.low for found in compared if found is not None)

    @property
    def variants(self) -> list[dict[str, object]]:
        """The rows that are no controls, as columns."""
        return [row.columns() for row in self.rows if not row.is_control]


def summarise(folders: Sequence[RunFolder], *, margin: float | None = None) -> Summary:
    """The summary of one run, or of the shards of one run in several folders.

    `margin` is the study's unless given: points of top-1 that do not matter. Raises InputError.
    """
    study, grid = folders[0].study(), folders[0].grid()
    for other in folders[1:]:
        if other.grid().trials.keys() != grid.trials.keys():
            raise InputError(
                f"{folders[0].path} and {other.path} are of different studies",
                "report on shards of one study at a time",
            )
    results = {key: found for key in grid.trials if (found := _first(folders, key)) is not None}
    blocks = _blocks(folders[0], results)
    problems = _problems(folders, grid, results)
    rows, family = _rows(grid, results, {p.key for p in problems}, blocks, study, margin or study.margin)
    environments = {json.dumps(result.environment, sort_keys=True): result.environment for result in results.values()}
    return Summary(
        study=study,
        family=family,
        layers=grid.layers,
        rows=tuple(rows),
        strips=tuple(_strips(grid, rows, results)),
        problems=problems,
        environments=tuple(environments.values()),
        trials=len(grid.trials),
        finished=len(results),
        images=next((result.record.images for result in results.values()), None),
        blocks=len(np.unique(blocks)) if blocks is not None else None,
        hours=sum(result.seconds for result in results.values()) / 3600,
    )


def _blocks(folder: RunFolder, results: Mapping[str, Result]) -> Numbers | None:
    """The number of the group of each image. Raises InputError where the results are not of the same images."""
    seen = {(result.record.images, result.record.unread) for result in results.values()}
    groups = folder.groups()
    if len(seen) > 1:
        counts = " and ".join(str(images) for images, _ in sorted(seen)[:2])
        raise InputError(
            f"the results in {folder.path} are of different images ({counts})", "run poolswap ablate again"
        )
    if not seen or groups is None:
        return None
    ((images, unread),) = seen
    if len(groups) != images + len(unread) or not all(0 <= place < len(groups) for place in unread):
        raise InputError(f"{folder.path} has groups of {len(groups)} images, not {images}", "run poolswap ablate again")
    return np.unique(np.delete(np.array(groups), list(unread)), return_inverse=True)[1].astype(np.int64)


def _first(folders: Iterable[RunFolder], key: str) -> Result | None:
    return next((result for folder in folders if (result := folder.result(key)) is not None), None)


def _problems(folders: Iterable[RunFolder], grid: Grid, results: Mapping[str, Result]) -> tuple[Problem, ...]:
    found = {}
    for folder in folders:
        for cell in grid.cells:
            if cell.key in results:
                continue
            failure = folder.failure(cell.key)
            if failure is None and folder.damaged(cell.key):
                failure = Failure(error=f"{folder.trial(cell.key) / 'result.json'} is damaged", traceback="")
            if failure is not None:
                row = Row(layers=cell.layers, order=cell.order, to=cell.to, adapt=cell.adapt, paths=cell.paths)
                what = f"{row.name}, {cell.adapt}, seed {cell.seed}"
                found[cell.key] = Problem(key=cell.key, what=what, error=failure.error, traceback=failure.traceback)
    return tuple(found.values())


def _rows(
    grid: Grid,
    results: Mapping[str, Result],
    failed: set[str],
    blocks: Numbers | None,
    study: Study,
    margin: float,
) -> tuple[list[Row], Family]:
    variants: dict[_Variant, list[Cell]] = {}
    for cell in grid.cells:
        variants.setdefault((cell.layers, cell.order, cell.to, cell.adapt, cell.paths), []).append(cell)
    controls = {
        adapt: {cell.seed: results[cell.key] for cell in cells if cell.key in results}
        for (layers, _, _, adapt, _), cells in variants.items()
        if layers == 0
    }
    costs = _costs(grid, results)
    rows = [_row(cells, results, failed, costs) for cells in variants.values()]
    pairs = [_pairs(cells, controls[cells[0].adapt], results) for cells in variants.values()]
    # A variant that is left out was looked at all the same: it counts among those that intervals hold for at once.
    family = Family(level_of(study), sum(map(bool, pairs)), margin)
    if study.halving:
        rows = [row.model_copy(update={"incomplete": row.layers > 0 and row.missing > 0}) for row in rows]
    beside = [_beside(row, mine, blocks, family) for row, mine in zip(rows, pairs, strict=True)]
    return beside, family


def _costs(grid: Grid, results: Mapping[str, Result]) -> dict[_Architecture, dict[str, PooledCost]]:
    """What each architecture costs: its trials differ in adaptation and seed, which change no time."""
    keys: dict[_Architecture, set[str]] = {}
    for cell in grid.cells:
        if cell.key in results:
            keys.setdefault((cell.to, cell.paths), set()).add(cell.key)
    return {which: pool(results[key].costs for key in sorted(mine)) for which, mine in keys.items()}


def _row(
    cells: list[Cell],
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
    top1, std = mean_std([result.top1 for result in own])
    fields |= {"top1": top1, "top1_std": std, "parameters": own[0].parameters}
    fields["curves"] = tuple(tuple(epoch.top1 for epoch in result.curve) for result in own if result.curve)
    fields |= {name: _mean([getattr(result, name) for result in own]) for name in _MEANS}
    fields["costs"] = costs[cell.to, cell.paths]
    return Row(**fields)


_MEANS = ("top5", "loss", "ece", "shift_consistency", "drift")


def _pairs(
    cells: list[Cell], control: Mapping[int, Result], results: Mapping[str, Result]
) -> list[tuple[Record, Record]]:
    """The records of a variant and of the control of the same seed; none for the control itself."""
    return [
        (results[cell.key].record, control[cell.seed].record)
        for cell in cells
        if cell.layers and cell.key in results and cell.seed in control
    ]


def _beside(row: Row, pairs: list[tuple[Record, Record]], blocks: Numbers | None, family: Family) -> Row:
    if not pairs or row.incomplete:
        return row
    judged = {
        name: judge(name, difference, family, seeds=len(pairs), deterministic=row.adapt == "none")
        for name, difference in differences(pairs, blocks).items()
    }
    return row.model_copy(update={"compared": judged, "paired": len(pairs)})


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) and known else None


def _probed(grid: Grid, results: Mapping[str, Result]) -> list[Strip]:
    """The mean over the seeds' controls of what each layer's replacement alone changed, by operator and adaptation."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in grid.cells:
        for one in results[cell.key].alone if cell.layers == 0 and cell.key in results else ():
            found.setdefault((one.to, cell.adapt), {}).setdefault(one.path, []).append(one.top1)
    return [
        Strip(
            title=f"top-1 change of the control ({adapt}), each layer alone replaced and nothing adapted after: {to}",
            kind="delta",
            values=tuple(_mean(changes.get(layer.path, [])) for layer in grid.layers),
        )
        for (to, adapt), changes in found.items()
    ]


def _strips(grid: Grid, rows: Sequence[Row], results: Mapping[str, Result]) -> list[Strip]:
    """Accuracy of each layer replaced alone: as the study asked, else in the control; and without, its drift."""
    alone = [row for row in rows if row.order == "single"]
    strips = _probed(grid, results) if not alone else []
    for to, adapt in dict.fromkeys((row.to, row.adapt) for row in alone):
        values = {
            row.paths[0]: getattr(row.top1_compared, "delta", None)
            for row in alone
            if (row.to, row.adapt) == (to, adapt)
        }
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
            title = f"drift, not accuracy: how far each layer's output moves on noise, before adaptation: {to}"
            strips.append(
                Strip(title=title, kind="drift", values=tuple(moved.get(layer.path) for layer in grid.layers))
            )
    return strips
