"""What a person wants to see while trials run: how many are done, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from poolswap.ablate.grid import Cell, Grid, Trial
from poolswap.ablate.runs import RunFolder
from poolswap.errors import visible

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 10


class StudyProgress:
    """Trials as they end; `pending` are those that this run has to do, `jobs` at a time."""

    def __init__(self, folder: RunFolder, grid: Grid, pending: Mapping[str, Trial], jobs: int) -> None:
        self.folder, self.total, self.jobs = folder, len(pending), jobs
        self._cells: dict[str, Cell] = {}
        for cell in grid.cells:
            self._cells.setdefault(cell.key, cell)
        self._ended: list[tuple[str, str, float | None, float]] = []
        self._start = time.monotonic()

    def add(self, key: str, outcome: str) -> None:
        """A trial ended."""
        result = self.folder.result(key) if outcome == "done" else None
        self._ended.append(
            (name(self._cells[key]), outcome, *((result.top1, result.seconds) if result else (None, 0.0)))
        )

    def last(self) -> str:
        """The trial that ended last, in a line."""
        what, outcome, top1, seconds = self._ended[-1]
        said = f"top-1 {top1:.2f} ({duration(seconds)})" if top1 is not None else outcome
        return f"[{len(self._ended)}/{self.total}] {what}: {said}; {self.left()} left"

    def line(self) -> str:
        """Where the run stands, in a line."""
        failed = sum(outcome == "failed" for _, outcome, _, _ in self._ended)
        return f"{len(self._ended)} of {self.total} trials ended, {failed} failed, {self.left()} left"

    def left(self) -> str:
        """Time left, from the time so far."""
        ended = len(self._ended)
        if not ended:
            return "?"
        return duration((time.monotonic() - self._start) / ended * (self.total - ended))

    def table(self) -> Table:
        """The last trials, for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=escape(visible(self.line())), title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for column in ("trial", "outcome", "top-1", "seconds"):
            table.add_column(column, justify="left" if column in ("trial", "outcome") else "right")
        for what, outcome, top1, seconds in self._ended[-_SHOWN:]:
            table.add_row(escape(visible(what)), outcome, "-" if top1 is None else f"{top1:.2f}", f"{seconds:.1f}")
        return table


def name(cell: Cell) -> str:
    """A trial in a few words."""
    where = "control" if cell.layers == 0 else f"{cell.to}, {cell.order} {cell.layers}"
    if cell.order == "single":
        where = f"{cell.to}, {cell.paths[0]} alone"
    return f"{where}, {cell.adapt}, seed {cell.seed}"


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
