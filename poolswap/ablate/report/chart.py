"""What all pictures of a report share: their colours, their paper, and labels that keep clear of one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from poolswap.ablate.report.summary import Row
from poolswap.ablate.stats import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers and on light and dark paper.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c8c2a", "#777777")
MARKERS = "osD^vP*X"
OPEN = "#85888f"
VERDICTS = {
    Verdict.BETTER: ("#0072B2", "^"),
    Verdict.NO_WORSE: ("#009E73", "o"),
    Verdict.WITHIN: ("#E69F00", "v"),
    Verdict.WORSE: ("#D55E00", "v"),
    Verdict.OPEN: (OPEN, "o"),
    Verdict.ONE_SEED: (OPEN, "x"),
}
LEAST_SPAN = 2.0  # points to either side of no difference: less would make a cliff of nothing
WIDTH = 9.0  # inches of a picture
_OFFSETS = ((7, 4), (7, -11), (-7, 4), (-7, -11), (0, 9), (0, -16), (12, 14), (-12, 14), (12, -22), (-12, -22))


@dataclass(frozen=True)
class Theme:
    """Colours of text, of lines, and of the paper."""

    ink: str
    line: str
    paper: str


@dataclass
class Chart:
    """A figure, its title, what is seen on it in a few sentences, and what to say at the artists with a gid."""

    name: str
    title: str
    caption: str
    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)

    def tip(self, text: str) -> str:
        """A new gid whose artist says this."""
        gid = f"{self.name}-tip-{len(self.tips)}"
        self.tips[gid] = text
        return gid


def panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows that were compared, by adaptation: each gets a scale of its own."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.top1_compared is not None:
            found.setdefault(row.adapt, []).append(row)
    return found


def span(intervals: Iterable[tuple[float, float]], least: float = LEAST_SPAN) -> tuple[float, float]:
    """From where to where an axis of differences goes: all intervals, and at least `least` to either side."""
    lows, highs = zip(*intervals, strict=True)
    return 1.1 * min(-least, *lows), 1.1 * max(least, *highs)


def plain(axes: Any, *, grid: str) -> None:
    """A frame of two sides, and lines across."""
    axes.grid(axis=grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def place_labels(figure: Figure, axes: Any, labels: Sequence[tuple[float, float, str]]) -> None:
    """Write each text beside its point where it covers no other label or point; one that finds no place is left out.

    To be called when the axes have their limits.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    spots = [axes.transData.transform((x, y)) for x, y, _ in labels]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    for (x, y, text), own in zip(labels, list(taken), strict=True):
        note = axes.annotate(text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=9)
        for right, up in _OFFSETS:
            note.set(position=(right, up), ha="left" if right > 0 else "right" if right < 0 else "center")
            box = note.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 60 and axes.bbox.y0 <= box.y0
            if inside and not any(box.overlaps(other) for other in taken if other is not own):
                taken.append(box)
                break
        else:
            note.remove()
