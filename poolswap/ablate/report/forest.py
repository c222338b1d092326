"""The main picture: each variant's difference to its control, with the intervals that decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poolswap.ablate.report.chart import LEAST_SPAN, VERDICTS, WIDTH, Chart, Theme, panels, plain, span
from poolswap.ablate.report.summary import Row, Summary
from poolswap.ablate.report.words import ADAPTED, difference

_MOST = 40  # rows of an adaptation; the table has all
_LINE = 0.3  # inches a row


def forest(summary: Summary, theme: Theme) -> Chart | None:
    """Differences and intervals, a panel an adaptation."""
    from matplotlib.figure import Figure

    shown = {adapt: _largest(rows) for adapt, rows in panels(summary.rows).items()}
    if not shown:
        return None
    heights = [len(rows) + 1.5 for rows in shown.values()]
    figure = Figure(figsize=(WIDTH, _LINE * sum(heights) + 0.7 * len(heights)), layout="constrained")
    chart = Chart("forest", "Top-1 against the control", _caption(summary), figure)
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(len(shown), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (adapt, rows) in zip(grid[:, 0], shown.items(), strict=True):
        _panel(chart, axes, rows, summary.family.margin, theme)
        axes.set_title(ADAPTED[adapt], fontsize=11, loc="left")
    grid[-1, 0].set_xlabel("top-1, points more or less than the control")
    return chart


def _panel(chart: Chart, axes: Any, rows: Sequence[Row], margin: float, theme: Theme) -> None:
    ends = [(found.joint_low, found.joint_high) for found in map(_compared, rows)]  # the wider of the two
    axes.set(xlim=span(ends, least=max(LEAST_SPAN, 2 * margin)), ylim=(len(rows) - 0.4, -0.6))
    axes.axvspan(-margin, margin, color=theme.line, alpha=0.35, linewidth=0)
    axes.axvline(0, color=theme.ink, linewidth=1)
    for y, row in enumerate(rows):
        found = _compared(row)
        colour, marker = VERDICTS[found.verdict]
        axes.plot([found.joint_low, found.joint_high], [y, y], color=colour, linewidth=0.9)
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=3.2, solid_capstyle="butt")
        said = difference(row, margin)
        gid = chart.tip(f"{row.name}, {ADAPTED[row.adapt]}: {said}")
        axes.plot([found.delta], [y], marker, color=colour, markersize=8, markeredgewidth=2, gid=gid, zorder=3)
        axes.text(1.01, y, said, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
    axes.tick_params(axis="y", length=0)
    plain(axes, grid="x")


def _compared(row: Row) -> Any:
    return row.top1_compared


def _largest(rows: list[Row]) -> list[Row]:
    """All, or the ones that differ most, in their order."""
    chosen = sorted(range(len(rows)), key=lambda n: -abs(_compared(rows[n]).delta))[:_MOST]
    return [rows[n] for n in sorted(chosen)]


def _caption(summary: Summary) -> str:
    level = f"{100 * summary.family.level:.4g}%"
    text = (
        f"Each mark is a variant less the control of the same seed, image by image. Thick: its {level} interval. "
        f"Thin: the interval that holds for {summary.family.together}, on which words rest. Shaded: less than "
        f"{summary.family.margin:g} points. Each adaptation has its own scale."
    )
    cut = [len(rows) for rows in panels(summary.rows).values() if len(rows) > _MOST]
    return text + (f" Of up to {max(cut)} variants the {_MOST} that differ most are drawn." if cut else "")
