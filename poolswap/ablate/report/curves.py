"""How the trainings went: validation top-1 by epoch, the variants beside their control."""

from __future__ import annotations

from poolswap.ablate.report.chart import MARKERS, SERIES, WIDTH, Chart, Theme, plain
from poolswap.ablate.report.summary import Row, Summary
from poolswap.ablate.report.words import ADAPTED

_LEAST_SPAN = 10.0  # points


def curves(summary: Summary, theme: Theme) -> Chart | None:
    """Means over the seeds, a panel an adaptation; of each operator the variant with the most layers."""
    from matplotlib.figure import Figure

    trained = {row.adapt: [r for r in summary.rows if r.adapt == row.adapt and r.curves] for row in summary.rows}
    trained = {adapt: rows for adapt, rows in trained.items() if rows}
    if not trained:
        return None
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    caption = (
        "Mean validation top-1 over the seeds, after each epoch; of each operator the variant with the most layers."
    )
    chart = Chart("curves", "Learning curves", caption, figure)
    for axes, (adapt, rows) in zip(figure.subplots(1, len(trained), squeeze=False)[0], trained.items(), strict=True):
        axes.set(xlabel="epoch", ylabel="validation top-1 (%)")
        axes.set_title(ADAPTED[adapt], fontsize=11, loc="left")
        lowest, highest = 100.0, 0.0
        for n, row in enumerate(_shown(rows)):
            means = _means(row)
            lowest, highest = min(lowest, *means), max(highest, *means)
            style = {"color": theme.ink, "linestyle": "--", "zorder": 4} if row.is_control else {"color": SERIES[n % 8]}
            gid = chart.tip(f"{row.name}, {ADAPTED[adapt]}: {means[-1]:.2f} % after {len(means)} epochs")
            axes.plot(range(1, len(means) + 1), means, marker=MARKERS[n % 8], markersize=4, **style, label=row.name)
            axes.plot([len(means)], means[-1:], MARKERS[n % 8], color=style["color"], markersize=7, gid=gid)
        spare = max(_LEAST_SPAN - (highest - lowest), 0)
        axes.set_ylim(max(lowest - spare - 1, 0), min(highest + 1, 101))
        axes.locator_params(axis="x", integer=True)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
        plain(axes, grid="y")
    return chart


def _shown(rows: list[Row]) -> list[Row]:
    most = {row.to: row for row in sorted(rows, key=lambda row: row.layers)}
    return [row for row in rows if row is most[row.to]][: len(SERIES)]


def _means(row: Row) -> list[float]:
    """By epoch, over the seeds that got that far."""
    longest = max(map(len, row.curves))
    by_epoch = ([curve[n] for curve in row.curves if n < len(curve)] for n in range(longest))
    return [sum(values) / len(values) for values in by_epoch]
