"""The numbers of a comparison: rows, their means over pictures, and CSV."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from poolswap.files import csv_of, write_text
from poolswap.images.compare import Comparison


@dataclass(frozen=True)
class Score:
    """One picture under one operator and kernel; a mean has no picture. `psnr` is in decibels."""

    picture: str | None
    kernel: int
    operator: str
    ssim: float
    psnr: float


def rows_of(comparison: Comparison) -> list[Score]:
    """The rows of one picture."""
    return [Score(comparison.picture.name, r.kernel, r.operator, r.ssim, r.psnr) for r in comparison.results]


def average(rows: Iterable[Score]) -> list[Score]:
    """The mean over pictures of each kernel and operator, in the order in which they first come."""
    groups: dict[tuple[int, str], list[Score]] = {}
    for row in rows:
        groups.setdefault((row.kernel, row.operator), []).append(row)
    return [
        Score(None, kernel, operator, sum(r.ssim for r in group) / len(group), sum(r.psnr for r in group) / len(group))
        for (kernel, operator), group in groups.items()
    ]


def write_csv(path: Path | str, rows: Iterable[Score], *, force: bool = False) -> None:
    """Write the rows under their names. Raises InputError where the file exists, unless `force`."""
    write_text(path, csv_of(map(asdict, rows)), force=force)
