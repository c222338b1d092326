"""What the gradient of beta costs: a forward and backward with a learnt beta against one with a number.

python benchmarks/learnt_beta.py [--rounds 15] [--csv FILE]

Processor time of one thread, the fastest of interleaved rounds: what else the machine does only ever adds to it.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
from torch import Tensor

from poolswap.bench.operator import STANDARD_CASES, Case
from poolswap.functional import soft_pool2d
from poolswap.ops.layout import CHANNELS_LAST

COLUMNS = ("case", "layout", "number ms", "one learnt", "one a channel, learnt")


def milliseconds(case: Case, x: Tensor, betas: dict[str, float | Tensor], rounds: int) -> dict[str, float]:
    """The fastest round of each kind of beta."""
    windows = case.kernel_size, case.stride, case.padding
    grad = torch.randn_like(soft_pool2d(x.detach(), *windows))
    fastest = dict.fromkeys(betas, float("inf"))
    for _ in range(rounds + 1):
        for name, beta in betas.items():
            begin = time.process_time()
            soft_pool2d(x, *windows, beta=beta).backward(grad)
            fastest[name] = min(fastest[name], 1e3 * (time.process_time() - begin))
            x.grad = None
    return fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--csv", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table: list[tuple[str, ...]] = []
    print("{:24} {:14} {:>9} {:>11} {:>22}".format(*COLUMNS))
    for case in STANDARD_CASES:
        for layout in case.layouts:
            torch.manual_seed(0)
            x = torch.randn(case.shape)
            if layout == "channels_last":
                x = x.contiguous(memory_format=CHANNELS_LAST[x.dim()])
            betas: dict[str, float | Tensor] = {"number": 1.0, "one": torch.tensor(1.0, requires_grad=True)}
            betas["channel"] = torch.linspace(0.5, 1.5, case.shape[1]).requires_grad_()
            times = milliseconds(case, x.requires_grad_(), betas, arguments.rounds)
            shares = (f"{times[name] / times['number']:.2f}" for name in ("one", "channel"))
            table.append((str(case), layout, f"{times['number']:.2f}", *shares))
            print("{:24} {:14} {:>9} {:>11} {:>22}".format(*table[-1]), flush=True)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *table])


if __name__ == "__main__":
    main()
