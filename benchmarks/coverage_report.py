"""The sweep's results as a page and a table."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

KNOWN = Path(__file__).resolve().parent.parent / "poolswap" / "models" / "known.csv"

_PAGE = """# Coverage: every architecture of timm and torchvision

Made by `python benchmarks/coverage.py` with {versions}. One row per architecture: [coverage.csv](coverage.csv).

{totals}

## What is compared

- **Ran**: the max and average pooling kernels that the dispatcher ran in one forward in eval mode, recorded without any
  of poolswap's own site code. One exemption: an average whose single unpadded window is the whole map of nine or more
  elements is a global mean. Adaptive pools, means, strided convolutions and blur filters are not window pooling.
- **Found**: the window sites of `find_pools`. They must have the same operations and output sizes in the same order.
- **Left**: the window kernels that still ran after every replaceable site was swapped for SoftPool. The shape of every
  output must be as before, at the model's own input size and at a second one (odd where the model takes one;
  fixed-size models take none).
- **Trains**: forward, backward and an optimizer step in train mode at batch 2, after the swap, wherever the stock model
  takes such a step on a batch alone. On the meta device this shows that autograd accepts what follows each pool; it
  computes no numbers.
- **Lifted**: for models with functional calls, a real forward on the CPU in eval and in train mode, from one seed,
  before and after lifting: every output bit-identical. Models that need targets in train mode have eval mode only.

Architectures run on the meta device; those that cannot ({cpu}) run on the CPU. Detectors resize to 128 pixels here
instead of 800, which changes no site, and the outputs compared are their backbone's feature maps: the number of boxes
follows the values. RAFT takes two images of 128 pixels. torchvision's quantised builders make float
models unless told otherwise, and are checked as those.

## Exceptions

{exceptions}

## Families with window pooling

| family | architectures | with window pooling | ran | found | left | functional | second size | trains |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{families}

Families without: {without}.
"""


def write_report(rows: Sequence[Row], architectures: int, page: Path, table: Path) -> None:
    """Write the page (Markdown) and the table (CSV)."""
    cpu = Counter(str(row["family"]) for row in rows if row["device"] == "cpu")
    with_pools, without = _families(rows)
    text = _PAGE.format(
        versions=rows[0]["versions"],
        totals=_totals(rows, architectures),
        cpu=", ".join(f"{name} {count}" for name, count in sorted(cpu.items())) or "none",
        exceptions=_exceptions(rows),
        families="\n".join(with_pools),
        without=", ".join(without),
    )
    page.write_text(text, encoding="utf-8")
    with table.open("w", encoding="utf-8", newline="") as file:
        columns = [name for name in rows[0] if name not in ("versions", "seconds")]
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_known(rows, str(rows[0]["versions"]))
    if (others := page.with_name("coverage-libraries.csv")).exists():
        write_libraries(page, others)


def write_known(rows: Iterable[Row], versions: str) -> None:
    """Write what `poolswap models` lists, a part of the package: name, window sites, functional ones."""
    libraries = ", ".join(re.findall(r"(?:timm|torchvision) [\d.]+", versions))
    lines = [f"{row['model'].removeprefix('timm:')},{row['found']},{row['functional']}" for row in rows]
    KNOWN.write_text("\n".join([f"# {libraries}", "name,sites,functional", *lines]) + "\n", encoding="utf-8")


def _cell(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return ("x" if all(isinstance(item, int) for item in value) else "; ").join(map(str, value))


def _totals(rows: Sequence[Row], architectures: int) -> str:
    pooling = [row for row in rows if row["ran"]]
    functional = [row for row in rows if row["functional"]]
    second = [row for row in pooling if row["second_size"]]
    calls = sum(row["functional"] for row in functional)
    ran, found, left = (sum(row[key] for row in rows) for key in ("ran", "found", "left"))
    problems = sum(row["problem"] is not None for row in rows)
    odd = sum(any(side % 2 for side in row["second_size"][-2:]) for row in second)
    return "\n".join(
        (
            f"**{len(rows)} of {architectures} architectures checked, {len(pooling)} with window pooling, "
            f"{problems} with a problem.**",
            *(
                ["The run that made this page was broken off: nothing is claimed about the others."]
                if len(rows) < architectures
                else []
            ),
            f"{ran} window kernels ran, {found} window sites were found, {left} stock kernels are left after the swap.",
            f"{len(functional)} architectures call {calls} of them as functions; lifting "
            f"alone is bit-identical in {sum(row['lifted'] is not None for row in functional)} "
            f"({sum(row['lifted'] == 'eval train' for row in functional)} in both modes).",
            f"A training step runs after the swap in {sum(row['trained'] is True for row in pooling)} of the "
            f"{sum(row['trained'] is not None for row in pooling)} whose stock model takes one.",
            f"The checks took {sum(row['seconds'] for row in rows) / 60:.0f} minutes of one core.",
            f"Shapes are the same at a second input size in {len(second)} of {len(pooling)}, {odd} at an odd one; the "
            f"others take one size only.",
        )
    )


def _exceptions(rows: Iterable[Row]) -> str:
    lines: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for reason in [*row["unreplaceable"], *filter(None, [row["problem"]])]:
            lines[reason].append(f"`{row['model']}`")
    return "\n".join(f"- {reason}: {', '.join(models)}" for reason, models in lines.items()) or "None."


def _families(rows: Iterable[Row]) -> tuple[list[str], list[str]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["family"]].append(row)
    lines, without = [], []
    for name, members in sorted(groups.items()):
        pooling = [row for row in members if row["ran"] or row["found"]]
        if not pooling:
            without.append(f"{name} ({len(members)})")
            continue
        sums = [sum(row[key] for row in members) for key in ("ran", "found", "left", "functional")]
        second = sum(row["second_size"] is not None for row in pooling)
        trains = sum(row["trained"] is True for row in pooling)
        lines.append(
            f"| {name} | {len(members)} | {len(pooling)} | {' | '.join(map(str, sums))} | {second} | {trains} |"
        )
    return lines, without


def write_libraries(page: Path, table: Path) -> None:
    """Put the table of the other libraries (CSV) into the page, in the place of the one that is there."""
    start, end = "<!-- libraries -->", "<!-- /libraries -->"
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(start)
    tail = rest.partition(end)[2]
    page.write_text(f"{head.rstrip()}\n\n{start}\n{_libraries(table)}\n{end}\n{tail.lstrip()}", encoding="utf-8")


def _libraries(table: Path) -> str:
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    swapped = [row for row in rows if row["restores"] != "-"]
    lines = [
        "## Other libraries",
        "",
        f"Made by `python benchmarks/coverage_libraries.py`: {len(rows)} architectures of "
        f"{len({row['library'] for row in rows})} libraries, random weights, on the CPU; {len(swapped)} have pools to "
        f"replace, {sum(bool(row['problem']) for row in rows)} a problem. One row per architecture: "
        "[coverage-libraries.csv](coverage-libraries.csv). Trains, exports, restores: of those that were swapped, how "
        "many do, of how many whose stock model does.",
        "",
        "| library | architectures | swapped | ran | found | left | trains | exports | restores |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for library in dict.fromkeys(row["library"] for row in rows):
        mine = [row for row in rows if row["library"] == library]
        answers = [[row[key] for row in mine if row[key] != "-"] for key in ("trains", "exports", "restores")]
        sums = [sum(int(row[key]) for row in mine) for key in ("ran", "found", "left")]
        cells = [library, len(mine), sum(row["restores"] != "-" for row in mine), *sums]
        cells += [f"{given.count('yes')} of {len(given)}" for given in answers]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for reason in filter(None, (row["why_left"], row["problem"])):
            reasons[reason].append(f"{row['library']} {row['model']}")
    lines += ["", *(f"- stays: {reason} ({', '.join(names)})" for reason, names in reasons.items())]
    return "\n".join(lines)
