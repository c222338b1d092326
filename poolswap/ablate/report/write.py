"""Summary -> report.html (one file that needs nothing else), report.md, report.csv, and the pictures as PNG and SVG."""

from __future__ import annotations

import io
import re
from html import escape
from pathlib import Path

from poolswap.ablate.compare import MEASURES
from poolswap.ablate.report import words
from poolswap.ablate.report.chart import Chart, Theme
from poolswap.ablate.report.figures import draw
from poolswap.ablate.report.summary import Summary
from poolswap.ablate.stats import Verdict
from poolswap.errors import MissingExtraError
from poolswap.files import atomic_path, check_writable, csv_of, write_text

_FILE = Theme(ink="#1d1f24", line="#b9bcc4", paper="#ffffff")
# Colours that occur nowhere else in the page's pictures: each is exchanged for a CSS variable of the page.
_PAGE = Theme(ink="#010203", line="#010204", paper="none")
_VARIABLES = {_PAGE.ink: "var(--ink)", _PAGE.line: "var(--line)"}
_SIGNS = {
    Verdict.BETTER: "▲",
    Verdict.NO_WORSE: "●",
    Verdict.WITHIN: "▽",
    Verdict.WORSE: "▼",
    Verdict.OPEN: "○",
    Verdict.ONE_SEED: "?",
}
_KINDS = {Verdict.BETTER: "better", Verdict.NO_WORSE: "fine", Verdict.WITHIN: "worse", Verdict.WORSE: "worse"}
_HEADLINES = 4  # what the page says before its pictures; the others are folded
_OTHERS = ("loss", "ece", "shift")  # measures beside top-1 that the tables show; the CSV has all


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
    environment.globals.update(signs=_SIGNS, words=words, kinds=_KINDS, shown=_HEADLINES)
    pictures = [(picture, inline(picture)) for picture in draw(summary, _PAGE)]
    return environment.get_template("page.html").render(
        summary=summary,
        pictures=pictures,
        study=summary.study.dumps(),
        facts=facts(summary),
    )


def facts(summary: Summary) -> dict[str, str]:
    """What was run, to be read before what came out: model, data, recipe."""
    study = summary.study
    recipe = ", ".join(f"{name} {value}" for name, value in study.recipe.items()) or "the defaults"
    images = f", {summary.images} images evaluated" if summary.images else ""
    groups = f" in {summary.blocks} groups" if summary.blocks else ""
    return {
        "model": f"{study.model}, weights {', '.join(study.weights)}",
        "data": f"{study.data}{images}{groups}",
        "recipe": f"{recipe}, batches of {study.batch_size}",
        "seeds": f"{len(study.seeds)}",
        "what does not matter": f"less than {summary.family.margin:g} points of top-1",
    }


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


def table(summary: Summary) -> str:
    """The rows as CSV, with full precision."""
    return csv_of(row.columns() for row in summary.rows)


def markdown(summary: Summary, pictures: list[str]) -> str:
    """The report for a README or a pull request."""
    margin = summary.family.margin
    lines = [f"# Ablation of {summary.study.model} on {summary.study.data}", ""]
    lines += [f"- **{short}**: {text}" for _, short, text in words.headlines(summary)]
    lines += ["", f"{summary.finished} of {summary.trials} trials finished. {words.caveat(summary)}", ""]
    lines += [f"- smallest difference that could be seen: {text}" for text in words.power(summary)]
    lines += ["", *(f"- {name}: {value}" for name, value in facts(summary).items()), ""]
    titles = [f"{MEASURES[name].title}" for name in _OTHERS]
    heads = ["variant", "adapted", "seeds", "top-1", "to control [95%]", "verdict", *titles]
    heads += ["forward", "training", "memory"]
    lines += ["| " + " | ".join(heads) + " |", "|---|---|--:|--:|--:|---" + "|--:" * (len(heads) - 6) + "|"]
    for row in summary.rows:
        cells = [row.name, row.adapt, str(row.seeds), words.spread(row), words.interval(row), words.said(row, margin)]
        cells += [words.difference(row, margin, name) for name in _OTHERS]
        cells += [words.time_of(row, "forward"), words.time_of(row, "training")]
        cells.append(number(words.memory_of(row), ".2f", "x"))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", *(f"![{name}](report-{name}.png)\n" for name in pictures)]
    if summary.problems:
        lines += ["## Failed", "", *(f"- {problem.what}: {problem.error}" for problem in summary.problems)]
    return "\n".join(lines).rstrip() + "\n"


def number(value: float | None, form: str, unit: str = "") -> str:
    """The number, or nothing."""
    return "" if value is None else f"{value:{form}}{unit}"
