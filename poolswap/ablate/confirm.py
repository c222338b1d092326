"""The variant that was chosen on validation images, and its control, judged once on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poolswap.ablate.grid import Cell, Grid, Trial, grid_of
from poolswap.ablate.runs import WEIGHTS, RunFolder
from poolswap.ablate.study import Study
from poolswap.ablate.variant import parse_variant
from poolswap.errors import InputError

TEST = "test"
_EXAMPLE = "write for example confirm='to=soft, layers=3, adapt=finetune'"


def confirmation(runs: RunFolder, asked: Study, which: str) -> tuple[RunFolder, Study, Grid]:
    """(folder RUN/test, its study, its grid) of one variant of a run, for `run_trials` as any other.

    `which` names columns of the report by value, such as "to=soft, layers=3, adapt=finetune"; `asked` is the run's own
    study, which may say otherwise how to run. Networks that the run kept are judged as they are, others are adapted
    again. Raises InputError where the variant is not one or was never measured, and as `judge_of` does.
    """
    study, grid = runs.study(), runs.grid()
    if asked.model_copy(update={"running": study.running}) != study:
        raise InputError(f"{runs.path} is of another study", "leave out what defines the study: it is in the folder")
    if study.split == TEST:
        raise InputError(f"{runs.path} was judged on test images already", "choose on split='val'")
    chosen = _chosen(grid.cells, which)
    if not any(runs.result(cell.key) for cell in chosen):
        raise InputError(
            f"confirm={which!r} was not measured in {runs.path}", "run the study, and choose by its report"
        )
    asked = asked.model_copy(update={"split": TEST, "until": None, "halving": None})
    wanted = {_place(cell): runs.trial(cell.key) / WEIGHTS for cell in [*chosen, *_controls(grid.cells, chosen)]}
    whole = grid_of(asked)
    cells = tuple(cell for cell in whole.cells if _place(cell) in wanted)
    trials = {cell.key: _with_weights(whole.trials[cell.key], wanted[_place(cell)]) for cell in cells}
    made = Grid(layers=whole.layers, cells=cells, trials=trials)
    return judge_of(runs, made), asked, made


def judge_of(runs: RunFolder, grid: Grid) -> RunFolder:
    """The folder RUN/test, where the test images judge the one choice in this grid.

    Raises InputError where they have judged another one already: a second choice would be made on them.
    """
    folder = RunFolder(runs.path / TEST)
    if folder.path.exists() and (before := folder.grid()).trials.keys() != grid.trials.keys():
        judged = next((cell for cell in before.cells if cell.layers), before.cells[0])
        raise InputError(
            f"the test images of {runs.path} have judged {judged.to}, {judged.layers} layers, {judged.adapt} already",
            "a second choice needs test images of its own",
        )
    return folder


def _chosen(cells: Sequence[Cell], which: str) -> list[Cell]:
    """The cells of the one variant, of every seed."""
    named = parse_variant(which, f"confirm={which!r}", _EXAMPLE)
    found = [cell for cell in cells if cell.layers and all(_column(cell, name) == value for name, value in named)]
    variants = {(cell.to, cell.adapt, cell.paths): cell for cell in found}
    if not variants:
        raise InputError(f"confirm={which!r} is no variant of this run", _EXAMPLE)
    if len(variants) > 1:
        several = f"confirm={which!r} is {len(variants)} variants, and one is judged"
        one = next(iter(variants.values()))
        example = f"to={one.to}, layers={one.layers}, order={one.order}, adapt={one.adapt}, paths={' '.join(one.paths)}"
        raise InputError(several, f"name one of them, such as confirm={example!r}")
    return found


def _column(cell: Cell, name: str) -> str:
    return " ".join(cell.paths) if name == "paths" else str(getattr(cell, name))


def _controls(cells: Sequence[Cell], chosen: Sequence[Cell]) -> list[Cell]:
    seeds = {(cell.adapt, cell.seed) for cell in chosen}
    return [cell for cell in cells if not cell.layers and (cell.adapt, cell.seed) in seeds]


def _place(cell: Cell) -> tuple[object, ...]:
    return cell.to, cell.order, cell.adapt, cell.seed, cell.paths


def _with_weights(trial: Trial, kept: Path) -> Trial:
    return trial.model_copy(update={"trained": kept.resolve()}) if kept.is_file() else trial
