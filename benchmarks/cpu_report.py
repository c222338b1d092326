"""Measure SoftPool on this CPU and put the tables into docs/benchmarks.md.

python benchmarks/cpu_report.py [--repeats N] [--model-repeats N] [--no-compile] [--no-models] ...

Took ten minutes on two cores, eight of them for whole models. For steady times, pin the threads
(GOMP_CPU_AFFINITY="0 1") and leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from poolswap.bench import ModelRow, OperatorRow, bench_model, bench_operator
from poolswap.bench.environment import environment, threads
from poolswap.bench.report import to_csv
from poolswap.files import write_text

HERE = Path(__file__).parent
MODELS = ("vgg16_bn", "googlenet", "inception_v3", "resnet50")
MODEL_BATCH = 2

# The goals of the kernel: SoftPool's time as a share of a peer's. forward / exp, / max_pool2d, / avg_pool2d, and
# forward+backward / max_pool2d.
GOALS: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("8x64x112x112 k3 s2 p1", "contiguous"): (0.50, 0.07, 0.20, 0.15),
    ("8x64x112x112 k3 s2 p1", "channels_last"): (0.50, 1.0, 1.5, 0.95),
    ("8x64x112x112 k2 s2 p0", "contiguous"): (0.40, 0.07, 0.18, 0.16),
    ("8x64x112x112 k2 s2 p0", "channels_last"): (0.42, 1.2, 1.8, 1.0),
    ("8x192x35x35 k3 s1 p1", "contiguous"): (1.1, 0.05, 0.11, 0.11),
    ("8x192x35x35 k3 s1 p1", "channels_last"): (0.7, 0.40, 0.75, 0.55),
    ("32x2048x7x7 k7 s7 p0", "contiguous"): (0.45, 0.22, 0.6, 0.42),
    ("32x2048x7x7 k7 s7 p0", "channels_last"): (0.31, 1.6, 2.3, None),
}
GOAL_PEERS = (
    ("forward", "exp"),
    ("forward", "max_pool2d"),
    ("forward", "avg_pool2d"),
    ("forward+backward", "max_pool2d"),
)
OTHER_PEERS = (
    ("forward", "copy"),
    ("forward", "two averages"),
    ("forward", "two averages, compiled"),
    ("forward+backward", "avg_pool2d"),
    ("forward+backward", "two averages"),
    ("forward+backward", "two averages, compiled"),
)
Found = dict[tuple[str, str, str, str], OperatorRow]


def goals_table(found: Found) -> str:
    """Reached shares beside their goals; missed ones in bold."""
    head = ["case", "layout", *(f"{direction} / {peer}" for direction, peer in GOAL_PEERS)]
    lines = []
    for (case, layout), goals in GOALS.items():
        cells = []
        for (direction, peer), goal in zip(GOAL_PEERS, goals, strict=True):
            ratio = found[case, layout, direction, peer].ratio
            reached = f"{ratio:.2f}" if goal is None or round(ratio, 2) <= goal else f"**{ratio:.2f}**"
            cells.append(reached if goal is None else f"{reached} ({goal:.2f})")
        lines.append([case, layout, *cells])
    return markdown(head, lines)


def times_table(found: Found) -> str:
    """Milliseconds, share of the copy speed and peak memory of SoftPool itself, and of max pooling beside it."""
    head = ["case", "layout", "pass", "ms", "quartiles", "of copy speed", "peak MiB", "max_pool2d ms", "its peak MiB"]
    lines = []
    for (case, layout, direction, contestant), row in found.items():
        if contestant == "soft_pool":
            largest = found[case, layout, direction, "max_pool2d"]
            time, share = row.timing, "-" if row.roofline is None else f"{row.roofline:.0%}"
            own = [f"{time.median:.2f}", f"{time.low:.2f}-{time.high:.2f}", share, mebibytes(row.peak_bytes)]
            other = [f"{largest.timing.median:.2f}", mebibytes(largest.peak_bytes)]
            lines.append([case, layout, direction, *own, *other])
    return markdown(head, lines)


def peers_table(found: Found) -> str:
    """Shares of the other peers' times."""
    head = ["case", "layout", *(f"{direction} / {peer}" for direction, peer in OTHER_PEERS)]
    lines = []
    for case, layout in GOALS:
        rows = [found.get((case, layout, *peer)) for peer in OTHER_PEERS]
        lines.append([case, layout, *("-" if row is None else f"{row.ratio:.2f}" for row in rows)])
    return markdown(head, lines)


def models_table(rows: Iterable[ModelRow]) -> str:
    """Original and swapped, and the quotient of their medians."""
    head = ["model", "pools", "layout", "pass", "original ms", "quartiles", "swapped ms", "quartiles", "ratio"]
    return markdown(
        head,
        [
            [
                *(row.model, str(row.replaced), row.layout, row.direction),
                *(f"{row.original.median:.0f}", f"{row.original.low:.0f}-{row.original.high:.0f}"),
                *(f"{row.swapped.median:.0f}", f"{row.swapped.low:.0f}-{row.swapped.high:.0f}"),
                f"{row.ratio:.3f}",
            ]
            for row in rows
        ],
    )


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def mebibytes(count: int | None) -> str:
    """MiB with one decimal."""
    return "-" if count is None else f"{count / 2**20:.1f}"


def put_between_markers(page: Path, name: str, text: str) -> None:
    """Replace what stands between the page's <!-- name --> and <!-- /name -->."""
    replaced = between_markers(name).sub(lambda match: f"{match[1]}{text}\n{match[2]}", page.read_text())
    write_text(page, replaced, force=True)


def between_markers(name: str) -> re.Pattern[str]:
    """Finds <!-- name --> .. <!-- /name -->, with the markers as groups."""
    return re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--model-repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--no-models", action="store_true", help="leave the table of whole models as it is")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--csv", type=Path, default=HERE / "cpu.csv")
    options = parser.parse_args()
    before = options.page.read_text() if options.page.exists() else ""
    for name in ("goals", "times", "peers", "models"):  # refused now rather than after the measurement
        if not between_markers(name).search(before):
            raise SystemExit(f"{options.page} has no <!-- {name} --> .. <!-- /{name} -->")
    with threads(options.threads):
        about = f"{environment()}. Medians of {options.repeats} interleaved rounds."
        rows = bench_operator(repeats=options.repeats, compiled=not options.no_compile)
        found = {(row.case, row.layout, row.direction, row.contestant): row for row in rows}
        write_text(options.csv, to_csv(rows), force=True)
        put_between_markers(options.page, "goals", f"{about}\n\n{goals_table(found)}")
        put_between_markers(options.page, "times", times_table(found))
        put_between_markers(options.page, "peers", peers_table(found))
        if options.no_models:
            return
        models: list[ModelRow] = []
        for name in MODELS:
            models += bench_model(name, [MODEL_BATCH], repeats=options.model_repeats, memory=False)
        about = f"{environment()}. Batch {MODEL_BATCH}, medians of {options.model_repeats} interleaved rounds."
        write_text(options.csv.with_stem(options.csv.stem + "_models"), to_csv(models), force=True)
        put_between_markers(options.page, "models", f"{about}\n\n{models_table(models)}")


if __name__ == "__main__":
    main()
