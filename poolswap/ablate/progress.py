"""What a person wants to see while trials run: what runs, how many are done, how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from poolswap.ablate.grid import Cell, Grid, Trial
from poolswap.ablate.runs import RunFolder
from poolswap.errors import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 8


class StudyProgress:
    """Trials as they end; `pending` are those that this run has to do, `jobs` at a time, in about `seconds`."""

    def __init__(
        self, folder: RunFolder, grid: Grid, pending: Mapping[str, Trial], jobs: int, seconds: float = 0.0
    ) -> None:
        self.folder, self.total, self.jobs, self.seconds = folder, len(pending), jobs, seconds
        self._cells: dict[str, Cell] = {}
        for cell in grid.cells:
            self._cells.setdefault(cell.key, cell)
        self._waiting = dict.fromkeys(pending)
        self._ended: list[tuple[str, str, float | None, float]] = []
        self._start = time.monotonic()

    def add(self, key: str, outcome: str) -> None:
        """A trial ended."""
        self._waiting.pop(key, None)
        result = self.folder.result(key) if outcome == "done" else None
        self._ended.append(
            (name(self._cells[key]), outcome, *((result.top1, result.seconds) if result else (None, 0.0)))
        )

    def last(self) -> str:
        """The trial that ended last, in a line."""
        what, outcome, top1, seconds = self._ended[-1]
        said = f"top-1 {top1:.2f} % ({duration(seconds)})" if top1 is not None else outcome
        return f"[{len(self._ended)}/{self.total}] {what}: {said}; {self.left()} left"

    def line(self) -> str:
        """Where the run stands, in a line."""
        failed = sum(outcome == "failed" for _, outcome, _, _ in self._ended)
        return f"{len(self._ended)} of {self.total} trials ended, {failed} failed, {self.left()} left"

    def running(self) -> list[str]:
        """The trials that run now: those that began first of the ones that have not ended."""
        return [name(self._cells[key]) for key in list(self._waiting)[: self.jobs]]

    def left(self) -> str:
        """Time left, from the time so far; before the first trial has ended, from the estimate."""
        ended, spent = len(self._ended), time.monotonic() - self._start
        if not ended:
            return f"about {duration(max(self.seconds - spent, 0))}"
        return duration(spent / ended * (self.total - ended))

    def table(self) -> RenderableType:
        """A bar, what runs, and the trials that ended last, for a terminal of any width."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("trial", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("state", no_wrap=True)
        table.add_column("top-1 (%)", justify="right", no_wrap=True)
        table.add_column("time (s)", justify="right", no_wrap=True)
        for what, outcome, top1, seconds in self._ended[-_SHOWN:]:
            table.add_row(
                Text(visible(what)),
                outcome,
                "-" if top1 is None else f"{top1:.2f}",
                f"{seconds:.1f}" if seconds else "-",
            )
        for what in self.running():
            table.add_row(Text(visible(what)), "running", "", "", style="bold")
        bar = Table.grid(expand=True)  # a bar of its own does not end its line
        bar.add_row(ProgressBar(total=max(self.total, 1), completed=len(self._ended)))
        return Group(Text(self.line()), bar, table)


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
