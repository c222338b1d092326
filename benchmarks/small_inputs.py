"""What a call costs beside torch's max pooling where there is next to nothing to pool: the time of a call itself.

python benchmarks/small_inputs.py [--rounds 400] [--csv FILE]

Each figure is the fastest of many rounds of calls, in turns with torch's own, on one thread: what else the machine does
only ever adds to a time.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.functional import soft_pool2d
from poolswap.nn import SoftPool2d

SHAPE, WINDOWS = (1, 4, 8, 8), (3, 2, 1)
CALLS = 50  # a round
COLUMNS = ("call", "max_pool2d", "soft_pool2d", "more")


def contests() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By name: (torch's, ours)."""
    x = torch.randn(SHAPE)
    last, leaf = x.contiguous(memory_format=torch.channels_last), x.clone().requires_grad_()
    grad = torch.randn(F.max_pool2d(x, *WINDOWS).shape)
    layer, soft_layer = nn.MaxPool2d(*WINDOWS), SoftPool2d(*WINDOWS)

    def both_passes(pool: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(pool(leaf, *WINDOWS), leaf, grad)

    return {
        "forward": (lambda: F.max_pool2d(x, *WINDOWS), lambda: soft_pool2d(x, *WINDOWS)),
        "forward, channels_last": (lambda: F.max_pool2d(last, *WINDOWS), lambda: soft_pool2d(last, *WINDOWS)),
        "forward of the module": (lambda: layer(x), lambda: soft_layer(x)),
        "forward, recorded": (lambda: F.max_pool2d(leaf, *WINDOWS), lambda: soft_pool2d(leaf, *WINDOWS)),
        "forward and backward": (both_passes(F.max_pool2d), both_passes(soft_pool2d)),
    }


def microseconds(pair: tuple[Callable[[], object], Callable[[], object]], rounds: int) -> tuple[float, float]:
    """The fastest round of each, a call."""
    fastest = [float("inf")] * 2
    for _ in range(rounds):
        for index, call in enumerate(pair):
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            fastest[index] = min(fastest[index], (time.perf_counter() - begin) / CALLS * 1e6)
    return fastest[0], fastest[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--csv", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{SHAPE} k3 s2 p1, torch {torch.__version__}; microseconds a call")
    print("{:24} {:>11} {:>12} {:>6}".format(*COLUMNS))
    table = []
    for name, pair in contests().items():
        theirs, ours = microseconds(pair, arguments.rounds)
        table.append((name, f"{theirs:.1f}", f"{ours:.1f}", f"{ours - theirs:.1f}"))
        print("{:24} {:>11} {:>12} {:>6}".format(*table[-1]))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *table])


if __name__ == "__main__":
    main()
