"""Summary -> report.html (one file that needs nothing else), report.md, report.csv, and the pictures as PNG and SVG."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path

from poolswap.ablate.report.figures import Chart, Theme, draw, spread
from poolswap.ablate.report.summary import Row, Summary
from poolswap.ablate.stats import Verdict
from poolswap.errors import MissingExtraError
from poolswap.files import atomic_path, check_writable, csv_of, write_text

_FILE = Theme(ink="#1d1f24", line="#b9bcc4", paper="#ffffff")
# Colours that occur nowhere else in the page's pictures: each is exchanged for a CSS variable of the page.
_PAGE = Theme(ink="#010203", line="#010204", paper="none")
_VARIABLES = {_PAGE.ink: "var(--ink)", _PAGE.line: "var(--line)"}
_SIGNS = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.SAME: "≈", Verdict.OPEN: "?"}


def write_report(summary: Summary, folder: Path | str, *, force: bool = False) -> list[Path]:
    """Write the report into the folder and return its files, the page first.

    Raises InputError where one exists (unless `force`), MissingExtraError without jinja2 or matplotlib.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(summary, _FILE)
    names = [f"report-{picture.name}.{form}" for picture in pictures for form in ("png", "svg")]
    paths = [folder / name for name in ("report.html", "report.md", "report.csv", *names)]
    for path in paths:
        check_writable(path, force=force)
    write_text(paths[0], page(summary), force=force)
    write_text(paths[1], markdown(summary, [picture.name for picture in pictures]), force=force)
    write_text(paths[2], table(summary), force=force)
    for picture in pictures:
        for form in ("png", "svg"):
            with atomic_path(folder / f"report-{picture.name}.{form}", force=force) as temporary:
                picture.figure.savefig(
                    temporary, format=form, dpi=160, metadata={"Date": None} if form == "svg" else {}
                )
    return paths


def page(summary: Summary) -> str:
    """The HTML page. Raises MissingExtraError without jinja2 or matplotlib."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("jinja2", "report") from None
    environment = Environment(
        loader=PackageLoader("poolswap.ablate.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(signs=_SIGNS, spread=spread, time_of=time_of, memory_of=memory_of)
    pictures = [(picture.name, picture.title, inline(picture)) for picture in draw(summary, _PAGE)]
    return environment.get_template("page.html").render(
        summary=summary,
        pictures=pictures,
        headlines=headlines(summary),
        caveat=caveat(summary),
        study=summary.study.dumps(),
        widest=_widest(summary),
    )


def _widest(summary: Summary) -> float:
    """The largest bound of an interval: all bars of the table share one scale."""
    ends = (end for row in summary.rows for end in (row.top1_low, row.top1_high) if end is not None)
    return max(map(abs, ends), default=0) or 1


def inline(picture: Chart) -> str:
    """The picture as an SVG element for the page: it follows the page's colours and says what its points are."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": picture.name}):
        picture.figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    tag = f'<svg role="group" aria-label="{escape(picture.title)}"'
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', rf"{tag}\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Several pictures share the page, where an id must be one element's.
    svg = re.sub(rf'\bid="(?!{picture.name}-tip-)', f'id="{picture.name}-', svg)
    svg = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\1{picture.name}-", svg)
    for gid, text in picture.tips.items():
        svg = svg.replace(
            f'<g id="{gid}"', f'<g id="{gid}" class="tip" tabindex="0" role="img" aria-label="{escape(text)}"'
        )
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def headlines(summary: Summary) -> list[tuple[Verdict | None, str]]:
    """For every operator and adaptation, what replacing the most layers did, or the layer that did most alone."""
    lines = []
    rows = [row for row in summary.rows if not row.is_control]
    for to, adapt in dict.fromkeys((row.to, row.adapt) for row in rows):
        mine = [row for row in rows if (row.to, row.adapt) == (to, adapt)]
        row = max(mine, key=lambda row: (row.layers, abs(row.top1_delta or 0)))
        lines.append((row.verdict, sentence(row, len(summary.layers))))
    return lines


def sentence(row: Row, available: int) -> str:
    """What one variant did, and how sure that is."""
    count = "all" if row.layers == available else f"{row.layers} of"
    what = f"{count} {available} layers to {row.to}, {_ADAPTED[row.adapt]}"
    if row.order == "single":
        what = f"{row.paths[0]} alone, which changes most, to {row.to}, {_ADAPTED[row.adapt]}"
    if row.top1_delta is None:
        return f"{what}: {'failed' if row.failed else 'no result beside the control yet'}."
    return (
        f"{what}: top-1 {row.top1_delta:+.2f} points against the control "
        f"(95% interval {row.top1_low:+.2f} to {row.top1_high:+.2f}): {row.verdict}."
    )


_ADAPTED = {
    "none": "as they are",
    "recalibrate": "recalibrated",
    "finetune": "fine-tuned",
    "scratch": "trained from scratch",
}


def table(summary: Summary) -> str:
    """The rows as CSV, with full precision."""
    return csv_of(row.columns() for row in summary.rows)


def markdown(summary: Summary, pictures: list[str]) -> str:
    """The report for a README or a pull request."""
    lines = [f"# Ablation of {summary.study.model} on {summary.study.data}", ""]
    lines += [f"- {text}" for _, text in headlines(summary)]
    lines += ["", f"{summary.finished} of {summary.trials} trials finished. {caveat(summary)}", ""]
    lines += [
        "| variant | adapted | seeds | top-1 (%) | to control [95%] | verdict | loss | shift consistency (%) "
        "| forward | training | memory | drift |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in summary.rows:
        cells = [row.name, row.adapt, str(row.seeds), spread(row), interval(row), row.verdict or ""]
        cells += [number(row.loss, ".3f"), number(row.shift_consistency, ".1f")]
        cells += [time_of(row, "forward"), time_of(row, "training"), number(memory_of(row), ".2f", "x")]
        cells.append(number(row.drift, ".3f"))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", *(f"![{name}](report-{name}.png)\n" for name in pictures)]
    if summary.problems:
        lines += ["## Failed", "", *(f"- {problem.what}: {problem.error}" for problem in summary.problems)]
    return "\n".join(lines).rstrip() + "\n"


def interval(row: Row) -> str:
    """The difference to the control and its interval."""
    if row.top1_delta is None:
        return ""
    return f"{row.top1_delta:+.2f} [{row.top1_low:+.2f}, {row.top1_high:+.2f}]"


def time_of(row: Row, name: str) -> str:
    """Time to the control's with its range, and whether that is more than the control's own noise."""
    cost = row.costs.get(name)
    if cost is None:
        return ""
    noise = "" if abs(cost.ratio - 1) > cost.noise else ", within noise"
    return f"{cost.ratio:.2f}x [{cost.low:.2f}, {cost.high:.2f}]{noise}"


def memory_of(row: Row) -> float | None:
    """Memory of a training pass to the control's."""
    cost = row.costs.get("training")
    return cost.memory_ratio if cost else None


def number(value: float | None, form: str, unit: str = "") -> str:
    """The number, or nothing."""
    return "" if value is None else f"{value:{form}}{unit}"


def caveat(summary: Summary) -> str:
    """What the intervals mean."""
    compared = sum(row.verdict is not None for row in summary.rows)
    chance = f" Of {compared} such rows, chance alone takes about {0.05 * compared:.1f} out of its interval."
    return (
        "± is the standard deviation over seeds. Intervals are 95% each, over the images of the test set and the seeds."
        + (chance if compared > 4 else "")
    )
