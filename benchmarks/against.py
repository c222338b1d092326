"""Put the kernel's time as a share of another build's into docs/benchmarks.md, by kind of values, in one run.

python benchmarks/against.py OLD_SO [--rounds N] [--page PAGE]

OLD_SO is the library of an earlier commit, built by CMake, for example of the last kernel whose sums shared one shift,
which N(0, 1) suits best:

    git worktree add ../before e872d3f
    cmake -S ../before/poolswap/csrc -B ../before/build && cmake --build ../before/build
    python benchmarks/against.py ../before/build/_soft_pool_cpu.so

Both are called by their addresses, on the same tensors, in turns, on one thread. Of each the fastest round counts, in
processor time, to which whatever else runs only ever adds.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from cpu_report import PASSES, markdown, put_between_markers, require_markers
from torch import Tensor

from poolswap.bench import STANDARD_CASES, Case
from poolswap.bench.environment import environment, threads
from poolswap.bench.values import NORMAL, VALUES
from poolswap.ops import cpu
from poolswap.ops.layout import CHANNELS_LAST, empty_output, layout_of
from poolswap.ops.windows import Windows

HERE = Path(__file__).parent
GOAL = 1.15  # on N(0, 1)
COMPARED = (NORMAL, "relu x2", "relu x64")
_BETAS = 4  # where the spec of today has the number of betas, which interface 1 does not know


def entries(library: ctypes.CDLL, spec: ctypes.Array[ctypes.c_int64]) -> tuple[Callable[..., int], Callable[..., int]]:
    """(forward(x, y, threads), backward(g, x, dx, threads)) of addresses, with a beta of 1."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    forward, backward = library.poolswap_forward, library.poolswap_backward
    if hasattr(library, "poolswap_interface"):
        forward.argtypes = [pointer, pointer, pointer, pointer, number]
        backward.argtypes = [pointer, pointer, pointer, pointer, pointer, pointer, number]
        beta = ctypes.byref(ctypes.c_double(1.0))
        return partial(forward, spec, beta), lambda g, x, dx, count: backward(spec, beta, g, x, dx, None, count)
    forward.argtypes = [pointer, ctypes.c_double, pointer, pointer, number]
    backward.argtypes = [pointer, ctypes.c_double, pointer, pointer, pointer, number]
    numbers = [*spec[:_BETAS], *spec[_BETAS + 1 :]]
    older = (ctypes.c_int64 * len(numbers))(*numbers)
    return partial(forward, older, 1.0), partial(backward, older, 1.0)


def passes(library: ctypes.CDLL, x: Tensor, windows: Windows) -> dict[str, Callable[[], None]]:
    """The two passes over x, into tensors of their own."""
    call = cpu._describe(x.dtype, x.shape, layout_of(x), windows, 1)
    forward, backward = entries(library, call.spec)
    y, dx = empty_output(x, windows.output_size), torch.empty_like(x)
    g = torch.ones_like(y)

    def pool() -> None:
        assert forward(x.data_ptr(), y.data_ptr(), 1) == 0

    def both() -> None:
        pool()
        assert backward(g.data_ptr(), x.data_ptr(), dx.data_ptr(), 1) == 0

    return dict(zip(PASSES, (pool, both), strict=True))


def fastest(calls: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """Milliseconds of processor time of each one's fastest round; an untimed call of its own goes before each."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            call()
            begin = time.process_time()
            call()
            best[index] = min(best[index], (time.process_time() - begin) * 1e3)
    return best


def measure(before: ctypes.CDLL, case: Case, layout: str, rounds: int) -> list[list[str]]:
    """A line a pass."""
    windows = Windows.place(case.geometry(), case.shape[2:])
    lines = {name: [str(case), layout, name] for name in PASSES}
    for values in COMPARED:
        torch.manual_seed(0)
        x = VALUES[values](case.shape)
        if layout == "channels_last":
            x = x.contiguous(memory_format=CHANNELS_LAST[x.dim()])
        ours, theirs = passes(cpu._library(), x, windows), passes(before, x, windows)
        for name, line in lines.items():
            earlier, now = fastest([theirs[name], ours[name]], rounds)
            if values == NORMAL:
                line += [f"{earlier:.2f}", f"{now:.2f}"]
            missed = values == NORMAL and round(now / earlier, 2) > GOAL
            line.append(f"**{now / earlier:.2f}**" if missed else f"{now / earlier:.2f}")
    return [*lines.values()]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="OLD_SO")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    options = parser.parse_args()
    require_markers(options.page, "against")
    before = ctypes.CDLL(str(options.before.resolve()))
    head = ["case", "layout", "pass", "before ms", "now ms", *(f"now / before, {values}" for values in COMPARED)]
    lines: list[list[str]] = []
    with threads(1):
        about = f"{environment()}. Processor time, fastest of {options.rounds} rounds."
        for case in STANDARD_CASES:
            for layout in case.layouts:
                lines += measure(before, case, layout, options.rounds)
                print(*lines[-2:], sep="\n", flush=True)
    put_between_markers(options.page, "against", f"{about}\n\n{markdown(head, lines)}")


if __name__ == "__main__":
    main()
