"""The pictures of a report: accuracy against layers, accuracy against latency, and the network itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from poolswap.ablate.report.summary import Row, Strip, Summary
from poolswap.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers and on light and dark paper.
_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c8c2a", "#777777")
_MARKERS = "osD^vP*X"
_MOST = 10  # names in a legend, and networks in a picture: beyond, the tooltips and the table say it
_BETTER, _WORSE, _MOVED = (0, 114, 178), (213, 94, 0), (204, 121, 167)


@dataclass(frozen=True)
class Theme:
    """Colours of text, of lines, and of the paper."""

    ink: str
    line: str
    paper: str


@dataclass
class Chart:
    """A figure, what it shows in a sentence, and what to say at the artists with a gid."""

    name: str
    title: str
    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)

    def tip(self, text: str) -> str:
        """A new gid whose artist says this."""
        gid = f"{self.name}-tip-{len(self.tips)}"
        self.tips[gid] = text
        return gid


def draw(summary: Summary, theme: Theme) -> list[Chart]:
    """The pictures for which the summary has numbers. Raises MissingExtraError without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError("matplotlib", "report") from None
    settings: dict[Any, Any] = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.line,
        "font.size": 11,
        "text.parse_math": False,  # a name is a name, whatever signs it has
    }
    settings |= {"xtick.color": theme.ink, "ytick.color": theme.ink, "axes.facecolor": "none"}
    settings |= {"figure.facecolor": theme.paper, "svg.fonttype": "none", "grid.color": theme.line}
    with mpl.rc_context(settings):
        made = (_layers(summary, theme), _latency(summary, theme), _network(summary, theme))
        return [picture for picture in made if picture is not None]


def _layers(summary: Summary, theme: Theme) -> Chart | None:
    rows = [row for row in summary.rows if row.top1 is not None and row.order != "single"]
    if not any(row.layers for row in rows):
        return None
    picture, axes = _plot("layers", "Top-1 against the number of replaced layers", "replaced layers", "top-1 (%)")
    controls = {row.adapt: row for row in rows if row.is_control}
    series = dict.fromkeys((row.to, row.order, row.adapt) for row in rows if row.layers)
    for n, (to, order, adapt) in enumerate(series):
        line = [row for row in rows if (row.to, row.order, row.adapt) == (to, order, adapt)]
        line = ([controls[adapt]] if adapt in controls else []) + sorted(line, key=lambda row: row.layers)
        shift = 0.06 * (n - (len(series) - 1) / 2)  # series side by side, so that bars do not cover one another
        _line(picture, axes, line, shift, f"{to}, {adapt}" + (f", {order}" if len(summary.study.order) > 1 else ""), n)
    axes.xaxis.get_major_locator().set_params(integer=True)
    for n, row in enumerate(controls.values()):
        label = "control" if n == 0 else None
        axes.axhline(row.top1 or 0, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 4)), zorder=1, label=label)
    _legend(axes)
    return picture


def _line(picture: Chart, axes: Any, rows: Sequence[Row], shift: float, label: str, n: int) -> None:
    colour, marker = _SERIES[n % len(_SERIES)], _MARKERS[n % len(_MARKERS)]
    axes.plot([row.layers + shift for row in rows], [row.top1 for row in rows], color=colour, linewidth=1.4, zorder=2)
    for row in rows:
        x = row.layers + shift
        axes.plot([x] * len(row.each_top1), row.each_top1, ".", color=colour, alpha=0.45, markersize=4, zorder=2)
        if row.top1_std:
            axes.errorbar([x], [row.top1], yerr=[row.top1_std], color=colour, capsize=3, linewidth=1.2, zorder=3)
        gid = picture.tip(f"{row.name}, {row.adapt}: {spread(row)}{_said(row)}")
        axes.plot([x], [row.top1], marker, color=colour, markersize=8, gid=gid, zorder=4)
    axes.plot([], [], marker=marker, color=colour, label=label)


def _latency(summary: Summary, theme: Theme) -> Chart | None:
    rows = [row for row in summary.rows if row.top1 is not None and not row.is_control and "forward" in row.costs]
    if not rows:
        return None
    picture, axes = _plot("latency", "Top-1 against latency", "time of a forward, control = 1", "top-1 (%)")
    series = dict.fromkeys((row.to, row.adapt) for row in rows)
    crowded = len(series) >= _MOST  # too many for a legend: each point says its operator
    for n, key in enumerate(series):
        colour, marker = _SERIES[n % len(_SERIES)], _MARKERS[n % len(_MARKERS)]
        for row in (row for row in rows if (row.to, row.adapt) == key):
            cost = row.costs["forward"]
            text = f"{row.name}, {row.adapt}: {spread(row)}, {cost.ratio:.2f} times the control's time"
            ends = [[max(cost.ratio - cost.low, 0)], [max(cost.high - cost.ratio, 0)]]
            axes.errorbar([cost.ratio], [row.top1], xerr=ends, yerr=[row.top1_std or 0], color=colour, linewidth=1)
            axes.plot([cost.ratio], [row.top1], marker, color=colour, markersize=8, gid=picture.tip(text))
            axes.annotate(
                str(row.to) if crowded else "" if row.order == "single" else str(row.layers),
                (cost.ratio, row.top1 or 0), xytext=(7, 4), textcoords="offset points", fontsize=9,
                rotation=60 if crowded else 0,
            )  # fmt: skip
        axes.plot([], [], marker, color=colour, label=f"{key[0]}, {key[1]}")
    for n, row in enumerate(row for row in summary.rows if row.is_control and row.top1 is not None):
        axes.plot(
            [1], [row.top1], "P", color=theme.ink, markersize=9, label="control" if n == 0 else None,
            gid=picture.tip(f"control, {row.adapt}: {spread(row)}"),
        )  # fmt: skip
    axes.margins(x=0.12)
    _legend(axes)
    return picture


def _network(summary: Summary, theme: Theme) -> Chart | None:
    from matplotlib.figure import Figure

    if not summary.strips:
        return None
    layers, strips = summary.layers, summary.strips[:_MOST]
    figure = Figure(figsize=(max(11.0, 1.1 * len(layers)), 1.6 * len(strips)), layout="constrained")
    title = "How sensitive each pooling layer is"
    picture = Chart("network", title, figure)
    for axes, strip in zip(figure.subplots(len(strips), squeeze=False)[:, 0], strips, strict=True):
        axes.set(xlim=(-0.5, len(layers) - 0.5), ylim=(-1.0, 1.0))
        axes.axis("off")
        axes.set_title(strip.title, fontsize=11, loc="left")
        for x in range(len(layers) + 1):
            axes.plot([max(x - 0.67, -0.47), min(x - 0.33, len(layers) - 0.53)], [0, 0], color=theme.line)
        axes.plot([len(layers) - 0.53], [0], ">", color=theme.line)
        _boxes(picture, axes, strip, summary, theme)
    return picture


def _boxes(picture: Chart, axes: Any, strip: Strip, summary: Summary, theme: Theme) -> None:
    from matplotlib.patches import FancyBboxPatch

    known = [abs(value) for other in summary.strips for value in other.values if value is not None]
    largest = max(known, default=0) or 1
    sides = [max(layer.size[1:], default=1) for layer in summary.layers]
    for x, (layer, value) in enumerate(zip(summary.layers, strip.values, strict=True)):
        height = 0.45 + 0.55 * (sides[x] / max(sides)) ** 0.5
        colour = _MOVED if strip.kind == "drift" else _BETTER if (value or 0) > 0 else _WORSE
        alpha = 0.12 + 0.7 * abs(value or 0) / largest
        said = "not measured" if value is None else f"{value:+.2f}" if strip.kind == "delta" else f"{value:.3f}"
        size = "x".join(map(str, layer.size))
        axes.add_patch(
            FancyBboxPatch(
                (x - 0.33, -height / 2), 0.66, height, boxstyle="round,pad=0,rounding_size=0.06", zorder=2,
                facecolor=(*(part / 255 for part in colour), alpha), edgecolor=theme.line,
                gid=picture.tip(f"{layer.path}: {layer.pooling}, output {size}: {said}"),
            )
        )  # fmt: skip
        axes.text(x, 0, said, ha="center", va="center", fontsize=11, zorder=3)
        axes.text(x, -0.62, layer.path, ha="center", va="top", fontsize=9)
        axes.text(x, -0.84, size, ha="center", va="top", fontsize=8)


def spread(row: Row) -> str:
    """Mean and standard deviation of top-1."""
    if row.top1 is None:
        return "no result"
    return f"{row.top1:.2f} %" + (f" ± {row.top1_std:.2f}" if row.top1_std is not None else "")


def _said(row: Row) -> str:
    if row.top1_delta is None:
        return ""
    return f"; {row.top1_delta:+.2f} to the control [{row.top1_low:+.2f}, {row.top1_high:+.2f}], {row.verdict}"


def _plot(name: str, title: str, x: str, y: str) -> tuple[Chart, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.grid(axis="y", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return Chart(name, title, figure), axes


def _legend(axes: Any) -> None:
    if len(axes.get_legend_handles_labels()[0]) <= _MOST:
        axes.legend(frameon=False, fontsize=9, loc="best")
