"""Successive halving: after every round only the better variants of a large grid go on, until few are left."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from math import ceil, inf, pow

from poolswap.ablate.grid import Cell, Grid, Trial
from poolswap.ablate.runs import Result
from poolswap.ablate.sequential import looks
from poolswap.ablate.study import Study
from poolswap.errors import InputError

_Results = Mapping[str, Result | None]


def check_halving(study: Study) -> None:
    """Raise InputError for a study that cannot be halved."""
    if study.until:
        raise InputError("until= adds seeds to all variants, and halving= takes them from most", "give one of them")
    if len(study.seeds) < 2:
        raise InputError("halving= leaves out by the first seeds, and there is one", "seeds=5")


def next_round(
    study: Study, grid: Grid, result: Callable[[str], Result | None], ended: Container[str] = ()
) -> dict[str, Trial]:
    """The trials of the first round that is not done; none at the end. `ended` are keys that are not tried again.

    What is spent are seeds (Jamieson and Talwalkar 2016): every variant is trained with one, then better ones with two,
    with four, and at last the `study.halving` best of each adaptation with all. The same share of them goes on each
    time. Better is the difference of top-1 to the control of the same seeds. Rounds follow from results alone, so that
    a run which was ended goes on.
    """
    assert study.halving is not None
    controls = [cell for cell in grid.cells if not cell.layers]
    alive = first = _variants(grid.cells)
    counts = looks(1, len(study.seeds))
    for n, count in enumerate(counts, 1):
        cells = [cell for mine in (controls, *alive) for cell in mine if cell.seed in study.seeds[:count]]
        results = {cell.key: result(cell.key) for cell in cells}
        pending = {key: grid.trials[key] for key, found in results.items() if found is None and key not in ended}
        if pending or n == len(counts):
            return pending
        share = n / (len(counts) - 1)
        alive = [
            cells
            for adapt in study.adapt
            for cells in _best(
                [cells for cells in alive if cells[0].adapt == adapt],
                _left(sum(cells[0].adapt == adapt for cells in first), study.halving, share),
                results,
                controls,
            )
        ]
    return {}


def _variants(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each variant; the first layer alone is one, also where it is the first of a row too."""
    found: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        if cell.layers:
            found.setdefault((cell.to, cell.adapt, cell.paths), []).append(cell)
    return list(found.values())


def _left(begun: int, at_last: int, share: float) -> int:
    """How many of `begun` variants go on when this share of the rounds is done."""
    return ceil(begun * pow(min(at_last / max(begun, 1), 1), share) - 1e-9)


def _best(variants: list[list[Cell]], count: int, results: _Results, controls: Sequence[Cell]) -> list[list[Cell]]:
    """The best `count`, in their order; a variant that failed is the worst."""
    stock = {(cell.adapt, cell.seed): results.get(cell.key) for cell in controls}

    def gain(n: int) -> float:
        pairs = [(results.get(cell.key), stock.get((cell.adapt, cell.seed))) for cell in variants[n]]
        both = [mine.top1 - control.top1 for mine, control in pairs if mine is not None and control is not None]
        return sum(both) / len(both) if both else -inf

    return [variants[n] for n in sorted(sorted(range(len(variants)), key=gain, reverse=True)[:count])]
