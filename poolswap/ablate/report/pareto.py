"""Accuracy against time: what is gained for what is paid, with the intervals of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poolswap.ablate.report.chart import VERDICTS, WIDTH, Chart, Theme, panels, place_labels, plain, span
from poolswap.ablate.report.summary import Row, Summary
from poolswap.ablate.report.words import ADAPTED, difference

_LEAST_RATIO = 0.1
_COLUMNS = 2


def pareto(summary: Summary, theme: Theme) -> Chart | None:
    """The difference of top-1 against the time of a forward, a panel an adaptation."""
    from matplotlib.figure import Figure

    shown = {
        adapt: timed
        for adapt, rows in panels(summary.rows).items()
        if (timed := [row for row in rows if "forward" in row.costs])
    }
    if not shown:
        return None
    columns = min(_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDTH, 3.6 * lines), layout="constrained")
    caption = (
        f"Top-1 less the control's, against the time of a forward of {summary.study.batch_size} images, to "
        "the control's. Height: the 95% interval. Width: the range of rounds and trials. The line joins variants that "
        "none beats in both; the cross is the control. Labels: operator and layers."
    )
    chart = Chart("pareto", "Accuracy against time", caption, figure)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[len(shown) :]:
        axes.remove()
    for axes, (adapt, rows) in zip(grid, shown.items(), strict=False):
        axes.set_title(ADAPTED[adapt], fontsize=11, loc="left")
        axes.set(xlabel="time of a forward, control = 1", ylabel="top-1, points to control")
        _panel(chart, axes, rows, summary, theme)
    for axes, rows in zip(grid, shown.values(), strict=False):
        place_labels(figure, axes, [(*_point(row), _label(row)) for row in rows])
    return chart


def _panel(chart: Chart, axes: Any, rows: Sequence[Row], summary: Summary, theme: Theme) -> None:
    times = [end for row in rows for end in (row.costs["forward"].low, row.costs["forward"].high)]
    heights = span((found.low, found.high) for found in map(_compared, rows))
    axes.set(xlim=(min(*times, 1 - _LEAST_RATIO) * 0.95, max(*times, 1 + _LEAST_RATIO) * 1.08), ylim=heights)
    axes.axhline(0, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 4)))
    axes.axvline(1, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 4)))
    axes.plot([1], [0], "P", color=theme.ink, markersize=9, gid=chart.tip("the control"))
    best = front([(1.0, 0.0), *map(_point, rows)])
    axes.plot(*zip(*best, strict=True), drawstyle="steps-post", color=theme.ink, linewidth=1, alpha=0.6)
    for row in rows:
        cost, found = row.costs["forward"], _compared(row)
        colour, marker = VERDICTS[found.verdict]
        axes.plot([cost.low, cost.high], [found.delta] * 2, color=colour, linewidth=1)
        axes.plot([cost.ratio] * 2, [found.low, found.high], color=colour, linewidth=1)
        said = f"{row.name}: {difference(row, summary.family.margin)}; {cost.ratio:.2f} times the control's time"
        axes.plot([cost.ratio], [found.delta], marker, color=colour, markersize=7, gid=chart.tip(said), zorder=3)
    plain(axes, grid="both")


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (time, accuracy) those that no other one beats in both, the fastest first."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept


def _compared(row: Row) -> Any:
    return row.top1_compared


def _point(row: Row) -> tuple[float, float]:
    return row.costs["forward"].ratio, _compared(row).delta


def _label(row: Row) -> str:
    return f"{row.to} {row.paths[0]}" if row.order == "single" else f"{row.to} {row.layers}"
