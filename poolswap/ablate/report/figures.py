"""The pictures of a report, in the order in which it shows them."""

from __future__ import annotations

from typing import Any

from poolswap.ablate.report.chart import Chart, Theme
from poolswap.ablate.report.curves import curves
from poolswap.ablate.report.forest import forest
from poolswap.ablate.report.network import network
from poolswap.ablate.report.pareto import pareto
from poolswap.ablate.report.summary import Summary
from poolswap.errors import MissingExtraError


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
        made = (kind(summary, theme) for kind in (forest, pareto, curves, network))
        return [picture for picture in made if picture is not None]
