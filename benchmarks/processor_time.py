"""Put SoftPool's share of max pooling's processor time into docs/benchmarks.md, for a machine that is never left alone.

python benchmarks/processor_time.py [--rounds 9] [--page PAGE] [--csv FILE]
POOLSWAP_CPU_ISA=x86_64_v3 ATEN_CPU_CAPABILITY=avx2 python benchmarks/processor_time.py     # the table of AVX2

One thread; of every contestant the fastest round counts, for whatever else runs only ever adds to processor time. A
round goes through all cases, so that work beside it which lasts some seconds spoils a round and not a case. Max pooling
is timed on N(0, 1) alone: what lies in the tensors changes its time by little.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cpu_report import GOALS, PASSES, markdown, put_between_markers, require_markers
from torch import Tensor
from torch.backends.cpu import get_cpu_capability
from torch.nn import functional as F

from poolswap.bench.environment import environment, threads
from poolswap.bench.model import Layout
from poolswap.bench.operator import STANDARD_CASES, Case
from poolswap.bench.values import NORMAL, VALUES, available
from poolswap.functional import soft_pool2d
from poolswap.ops.cpu import instruction_set
from poolswap.ops.layout import CHANNELS_LAST

HERE = Path(__file__).parent
# By instruction set: the table's name in the page, and its goals as a multiple of those with AVX-512.
TABLES = {"x86_64_v4": ("processor", 1.0), "x86_64_v3": ("processor_avx2", 1.4)}


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of a call, after an untimed one."""
    call()
    begin = time.process_time()
    call()
    return (time.process_time() - begin) * 1e3


def passes(pool: Callable[[Tensor], Tensor], x: Tensor) -> list[float]:
    """Milliseconds of the forward, and of forward and backward."""
    with torch.no_grad():
        forward = milliseconds(lambda: pool(x))
        grad = torch.randn_like(pool(x))
    leaf = x.clone().requires_grad_()

    def both() -> None:
        pool(leaf).backward(grad)
        leaf.grad = None

    return [forward, milliseconds(both)]


def measure(case: Case, layout: Layout) -> list[float]:
    """`passes` of max pooling, then of SoftPool on every kind of values."""
    windows = case.kernel_size, case.stride, case.padding
    times: list[float] = []
    for values in sorted(available(case.dims), key=lambda name: name != NORMAL):
        torch.manual_seed(0)
        x = VALUES[values](case.shape)
        if layout == "channels_last":
            x = x.contiguous(memory_format=CHANNELS_LAST[x.dim()])
        if values == NORMAL:
            times += passes(lambda x: F.max_pool2d(x, *windows), x)
        times += passes(lambda x: soft_pool2d(x, *windows), x)
    return times


def lines_of(case: Case, layout: Layout, measured: list[float], slack: float) -> list[list[str]]:
    """A line a pass."""
    lines = []
    for index, (name, share) in enumerate(zip(PASSES, GOALS[str(case), layout], strict=True)):
        goal = round(share * slack, 2)
        largest, *times = measured[index :: len(PASSES)]
        worst, best = (pick(times) / largest for pick in (max, min))
        shown = f"{worst:.2f}" if round(worst, 2) <= goal else f"**{worst:.2f}**"
        own = [f"{times[0]:.2f}", f"{largest:.2f}", f"{best:.2f}", shown, f"{goal:.2f}"]
        lines.append([str(case), layout, name, *own, f"{max(times) / min(times):.2f}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    table, slack = TABLES[instruction_set()]
    require_markers(options.page, table)
    head = ["case", "layout", "pass", "ms", "max_pool2d ms", "best", "worst", "goal", "slowest / fastest"]
    fastest: dict[tuple[Case, Layout], list[float]] = {}
    with threads(1):
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            for case in STANDARD_CASES:
                for layout in case.layouts:
                    found = measure(case, layout)
                    fastest[case, layout] = [*map(min, found, fastest.get((case, layout), found))]
        about = f"{environment()} ({get_cpu_capability()}). Processor time, fastest of {options.rounds} rounds."
    lines = [line for key, times in fastest.items() for line in lines_of(*key, times, slack)]
    with (options.csv or HERE / f"{table}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *lines])
    put_between_markers(options.page, table, f"{about}\n\n{markdown(head, lines)}")


if __name__ == "__main__":
    main()
