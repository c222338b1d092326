"""The tables of studies in docs/ablate.md and docs/operators.md, from the reports that are committed beside them.

With NAME=RUN the report of a runs folder is written and taken over first: its CSV, and the pictures on the page.

    python benchmarks/studies.py [photographs-densenet=densenet ...]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from cpu_report import markdown, put_between_markers
from front import Row, rows_of

from poolswap.ablate.report import summarise, write_report
from poolswap.ablate.runs import RunFolder

DOCS = Path(__file__).resolve().parent.parent / "docs"
STUDIES = {
    "photographs-resnet": ("forest.png", "network.png"),
    "photographs-vgg": ("forest.png", "network.png"),
    "photographs-densenet": ("forest.png", "network.png"),
    "photographs-operators": ("forest.png", "pareto.png", "html"),
    "photographs-back": ("forest.png",),
    "photographs-anneal": (),
    "digits": ("forest.png",),
    "photographs-heads": ("forest.png",),
    "digits-heads": (),
}


def csv_of(name: str) -> Path:
    """Where the numbers of a study are committed."""
    return DOCS / f"ablate-{name}.csv"


def page_of(name: str) -> Path:
    """The page that shows a study."""
    return DOCS / ("operators.md" if name.endswith("-heads") else "ablate.md")


def table(rows: list[dict[str, str]]) -> str:
    """Every variant beside the control of its adaptation; what all rows share is left out."""
    layers = len({row["layers"] for row in rows}) > 2
    operators = not layers or len({row["to"] for row in rows if row["to"]}) > 1
    names = {"operator": operators, "replaced": layers, "adapted": len({row["adapt"] for row in rows}) > 1}
    head = [name for name, shown in names.items() if shown]
    numbers = [
        "top-1 %",
        "to control [95 %]",
        "verdict",
        "beside the others",
        "loss [95 %]",
        "shift %",
        "forward",
        "memory",
    ]
    return markdown([*head, *numbers], [[*_names(row, head), *_numbers(row)] for row in rows])


def _names(row: Row, columns: list[str]) -> list[str]:
    operator = f"`{Path(row['to']).name}`"
    found = {"operator": operator, "replaced": row["layers"], "adapted": row["adapt"]}
    if not row["to"]:
        found |= {"operator": "", "replaced": "", columns[0]: "none, the control"}
    return [found[column] for column in columns]


def _numbers(row: Row) -> list[str]:
    spread = f" ± {float(row['top1_std']):.2f}" if row["top1_std"] else ""
    time = f"{float(row['forward_ratio']):.2f} [{float(row['forward_low']):.2f}, {float(row['forward_high']):.2f}]"
    memory = f"{float(row['training_memory_ratio']):.2f}"
    verdicts = [row["top1_verdict"], row["top1_joint_verdict"]]
    differences = [_interval(row, "top1", 2), *verdicts, _interval(row, "loss", 3)]
    return [f"{float(row['top1']):.2f}{spread}", *differences, f"{float(row['shift_consistency']):.1f}", time, memory]


def _interval(row: Row, measure: str, places: int) -> str:
    if not row["to"]:
        return ""
    delta, low, high = (f"{float(row[f'{measure}_{end}']):+.{places}f}" for end in ("delta", "low", "high"))
    return f"{delta} [{low}, {high}]"


def take(name: str, run: Path) -> None:
    """The report of a runs folder, into the documentation."""
    write_report(summarise([RunFolder(run)]), run, force=True)
    for file in ("csv", *STUDIES[name]):
        mark = "-" if "." in file else "."  # report-forest.png, report.csv
        shutil.copy(run / f"report{mark}{file}", DOCS / f"ablate-{name}{mark}{file}")


def main() -> None:
    """Write the pages' tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN", help=f"NAME is one of {', '.join(STUDIES)}")
    for named in parser.parse_args().runs:
        name, _, run = named.partition("=")
        take(name, Path(run))
    for name in STUDIES:
        put_between_markers(page_of(name), name, table(rows_of(csv_of(name))))


if __name__ == "__main__":
    main()
