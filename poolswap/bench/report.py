"""A benchmark's rows as a table, CSV, and a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poolswap.bench.model import ModelRow
from poolswap.bench.operator import SOFT_POOL, OperatorRow
from poolswap.errors import InputError, MissingExtraError
from poolswap.files import csv_of

Rows = Sequence[OperatorRow] | Sequence[ModelRow]

OPERATOR_COLUMNS = [
    *("case", "layout", "values", "pass", "contestant", "ms", "quartiles", "fastest", "soft / this"),
    *("of copy speed", "peak MiB"),
]
OPERATOR_SPARE = ["fastest", "of copy speed", "quartiles", "peak MiB"]
SUMMARY_COLUMNS = ["case", "layout", "pass", "ms", "best", "worst", "worst with", "of avg", "peak MiB"]
SUMMARY_SPARE = ["peak MiB", "of avg", "worst with"]
MODEL_COLUMNS = [
    *("model", "batch", "layout", "values", "pass", "original ms", "quartiles", "swapped ms", "swapped quartiles"),
    *("swapped / original", "peak MiB", "swapped peak MiB"),
]
MODEL_SPARE = ["values", "quartiles", "swapped quartiles", "peak MiB", "swapped peak MiB"]


def summary_table(rows: Sequence[OperatorRow]) -> list[list[object]]:
    """Cells under SUMMARY_COLUMNS, one line a case, layout and pass.

    `best` and `worst` are SoftPool's shares of max pooling's time with the values that do best and worst for it,
    `of avg` its share of average pooling's; milliseconds and peak are SoftPool's on N(0, 1).
    """
    passes: dict[tuple[str, ...], dict[str, list[OperatorRow]]] = {}
    for row in rows:
        contestants = passes.setdefault((row.case, row.layout, row.direction), {})
        contestants.setdefault(re.sub(r"\dd$", "", row.contestant), []).append(row)
    lines: list[list[object]] = []
    for names, contestants in passes.items():
        soft, average = contestants[SOFT_POOL][0], contestants["avg_pool"][0]  # N(0, 1) comes first
        largest = sorted(contestants["max_pool"], key=lambda row: row.ratio)
        shares = [round(row.ratio, 3) for row in (largest[0], largest[-1])]
        rest = [largest[-1].values, round(average.ratio, 3), _mebibytes(soft.peak_bytes)]
        lines.append([*names, round(soft.timing.median, 3), *shares, *rest])
    return lines


def operator_table(rows: Sequence[OperatorRow]) -> list[list[object]]:
    """Cells under OPERATOR_COLUMNS."""
    return [
        [
            row.case,
            row.layout,
            row.values,
            row.direction,
            row.contestant,
            round(row.timing.median, 3),
            f"{row.timing.low:.3f}-{row.timing.high:.3f}",
            round(row.timing.fastest, 3),
            round(row.ratio, 3),
            None if row.roofline is None else f"{row.roofline:.0%}",
            _mebibytes(row.peak_bytes),
        ]
        for row in rows
    ]


def model_table(rows: Sequence[ModelRow]) -> list[list[object]]:
    """Cells under MODEL_COLUMNS."""
    return [
        [
            row.model,
            row.batch_size,
            row.layout,
            row.values,
            row.direction,
            round(row.original.median, 2),
            f"{row.original.low:.2f}-{row.original.high:.2f}",
            round(row.swapped.median, 2),
            f"{row.swapped.low:.2f}-{row.swapped.high:.2f}",
            round(row.ratio, 3),
            _mebibytes(row.original_peak_bytes),
            _mebibytes(row.swapped_peak_bytes),
        ]
        for row in rows
    ]


def to_csv(rows: Rows) -> str:
    """One line a row, every field; times in milliseconds."""
    return csv_of(_flat(row) for row in rows)


def check_plot(path: Path) -> None:
    """Raise what `save_picture` would, before anything is timed: MissingExtraError, or InputError for the suffix."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    if path.suffix.lstrip(".") not in Figure().canvas.get_supported_filetypes():
        raise InputError(f"{path} is no picture by its name", f"name it {path.stem}.png, .svg or .pdf")


def save_picture(rows: Rows, path: Path) -> None:
    """Bars of the medians with their quartiles, in the format of the path's suffix.

    Raises MissingExtraError without matplotlib, InputError for a suffix that it does not draw.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    panels: dict[str, list[tuple[str, Any]]] = {}
    for row in rows:
        if isinstance(row, OperatorRow):
            panels.setdefault(f"{row.case}\n{row.layout}, {row.values}, {row.direction}", []).append(
                (row.contestant, row.timing)
            )
        else:
            bars = panels.setdefault(f"{row.model}, batch {row.batch_size}\n{row.layout}, {row.direction}", [])
            bars += [("original", row.original), ("swapped", row.swapped)]
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.4 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, (title, bars) in zip(grid, panels.items(), strict=False):
        _draw(axes, title, bars)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.savefig(path)


def _draw(axes: Any, title: str, bars: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in bars]
    medians = [timing.median for _, timing in bars]
    errors = [[t.median - t.low for _, t in bars], [t.high - t.median for _, t in bars]]
    colours = ["tab:orange" if name in (SOFT_POOL, "swapped") else "tab:gray" for name in names]
    axes.barh(names, medians, xerr=errors, color=colours)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("ms", fontsize=7)


def _flat(row: OperatorRow | ModelRow) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in vars(row).items():
        if hasattr(value, "median"):
            flat |= {f"{name}_{part}": number for part, number in vars(value).items()}
        else:
            flat[name] = value
    return flat


def _mebibytes(count: int | None) -> float | None:
    return None if count is None else round(count / 2**20, 1)
