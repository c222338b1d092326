"""Measure SoftPool on this CPU and put the tables into docs/benchmarks.md.

python benchmarks/cpu_report.py [--repeats N] [--model-repeats N] [--no-compile] [--no-operators] [--no-models] ...

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
from poolswap.bench.values import NORMAL, VALUES
from poolswap.files import write_text

HERE = Path(__file__).parent
MODELS = ("resnet50", "vgg16", "googlenet")
MODEL_BATCH = 2

# The goals of the kernel: SoftPool's share of max pooling's time, forward and forward+backward, whatever lies in the
# tensors.
GOALS: dict[tuple[str, str], tuple[float, float]] = {
    ("8x64x112x112 k3 s2 p1", "contiguous"): (0.08, 0.20),
    ("8x64x112x112 k3 s2 p1", "channels_last"): (0.75, 0.95),
    ("8x64x112x112 k2 s2 p0", "contiguous"): (0.08, 0.20),
    ("8x64x112x112 k2 s2 p0", "channels_last"): (0.85, 0.95),
    ("8x192x35x35 k3 s1 p1", "contiguous"): (0.06, 0.13),
    ("8x192x35x35 k3 s1 p1", "channels_last"): (0.45, 0.80),
    ("32x2048x7x7 k7 s7 p0", "contiguous"): (0.25, 0.45),
    ("32x2048x7x7 k7 s7 p0", "channels_last"): (1.4, 1.5),
    **{(f"8x512x20x20 k{k} s1 p{k // 2}", "contiguous"): (0.08, 0.25) for k in (5, 9, 13)},
    **{(f"8x512x20x20 k{k} s1 p{k // 2}", "channels_last"): (0.6, 1.0) for k in (5, 9, 13)},
}
PASSES = ("forward", "forward+backward")
OTHER_PEERS = (
    ("forward", "exp"),
    ("forward", "avg_pool2d"),
    ("forward", "avg_pool2d, oneDNN"),
    ("forward", "copy"),
    ("forward", "two averages"),
    ("forward", "two averages, compiled"),
    ("forward+backward", "avg_pool2d"),
    ("forward+backward", "avg_pool2d, oneDNN"),
    ("forward+backward", "two averages"),
    ("forward+backward", "two averages, compiled"),
)
Found = dict[tuple[str, str, str, str, str], OperatorRow]


def goals_table(found: Found) -> str:
    """Shares of max pooling's time: with the values that do best and worst, and the goal; missed ones in bold."""
    head = ["case", "layout", "pass", "best", "worst", "goal", *VALUES, "slowest / fastest"]
    lines = []
    for (case, layout), goals in GOALS.items():
        for direction, goal in zip(PASSES, goals, strict=True):
            rows = {v: found.get((case, layout, v, direction, "max_pool2d")) for v in VALUES}
            ratios = [row.ratio for row in rows.values() if row]
            soft = [found[case, layout, v, direction, "soft_pool"].timing.median for v, row in rows.items() if row]
            worst = f"{max(ratios):.2f}" if round(max(ratios), 2) <= goal else f"**{max(ratios):.2f}**"
            cells = [f"{row.ratio:.2f}" if row else "-" for row in rows.values()]
            spread = f"{max(soft) / min(soft):.2f}"
            lines.append([case, layout, direction, f"{min(ratios):.2f}", worst, f"{goal:.2f}", *cells, spread])
    return markdown(head, lines)


def times_table(found: Found) -> str:
    """Milliseconds, share of the copy speed and peak memory of SoftPool itself, and of max pooling beside it."""
    head = ["case", "layout", "pass", "ms", "quartiles", "of copy speed", "peak MiB", "max_pool2d ms", "its peak MiB"]
    lines = []
    for (case, layout, values, direction, contestant), row in found.items():
        if contestant == "soft_pool" and values == NORMAL:
            largest = found[case, layout, values, direction, "max_pool2d"]
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
        rows = [found.get((case, layout, NORMAL, *peer)) for peer in OTHER_PEERS]
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


def require_markers(page: Path, *names: str) -> None:
    """Exit where the page lacks one of these places: now, rather than after the measurement."""
    text = page.read_text() if page.exists() else ""
    for name in names:
        if not between_markers(name).search(text):
            raise SystemExit(f"{page} has no <!-- {name} --> .. <!-- /{name} -->")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--model-repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--no-operators", action="store_true", help="leave the operator's tables as they are")
    parser.add_argument("--no-models", action="store_true", help="leave the table of whole models as it is")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--csv", type=Path, default=HERE / "cpu.csv")
    options = parser.parse_args()
    require_markers(options.page, "goals", "times", "peers", "models")
    with threads(options.threads):
        if not options.no_operators:
            measure_operators(options)
        if not options.no_models:
            measure_models(options)


def measure_operators(options: argparse.Namespace) -> None:
    """The tables of the operator alone."""
    about = f"{environment()}. Medians of {options.repeats} interleaved rounds."
    rows = bench_operator(repeats=options.repeats, compiled=not options.no_compile)
    found = {(row.case, row.layout, row.values, row.direction, row.contestant): row for row in rows}
    write_text(options.csv, to_csv(rows), force=True)
    put_between_markers(options.page, "goals", f"{about}\n\n{goals_table(found)}")
    put_between_markers(options.page, "times", times_table(found))
    put_between_markers(options.page, "peers", peers_table(found))


def measure_models(options: argparse.Namespace) -> None:
    """The table of whole models."""
    rows: list[ModelRow] = []
    for name in MODELS:
        rows += bench_model(name, [MODEL_BATCH], repeats=options.model_repeats, memory=False)
    of = rows[0].values
    about = f"{environment()}. Batch {MODEL_BATCH} of {of}, medians of {options.model_repeats} interleaved rounds."
    write_text(options.csv.with_stem(options.csv.stem + "_models"), to_csv(rows), force=True)
    put_between_markers(options.page, "models", f"{about}\n\n{models_table(rows)}")


if __name__ == "__main__":
    main()
