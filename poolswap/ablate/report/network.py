"""The network as a row of layers, each with what replacing it does."""

from __future__ import annotations

from typing import Any

from poolswap.ablate.report.chart import Chart, Theme
from poolswap.ablate.report.summary import Strip, Summary

_MOST = 10  # networks in a picture
_BETTER, _WORSE, _MOVED = (0, 114, 178), (213, 94, 0), (204, 121, 167)


def network(summary: Summary, theme: Theme) -> Chart | None:
    from matplotlib.figure import Figure

    if not summary.strips:
        return None
    layers, strips = summary.layers, summary.strips[:_MOST]
    figure = Figure(figsize=(max(11.0, 1.1 * len(layers)), 1.6 * len(strips)), layout="constrained")
    if strips[0].kind == "delta":
        title, caption = "Each layer replaced alone", "Points of top-1 against the control; darker is further from it."
    else:
        title = "How far each layer's output moves"
        caption = (
            "Relative change of each replaced layer's output, on noise and before any adaptation: what it moves, not "
            "what it costs. Darker is further."
        )
    picture = Chart("network", title, caption, figure)
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
