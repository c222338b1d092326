"""What Triton's compiler makes of every kernel on every target: a table and CSV, with no GPU needed.

python benchmarks/triton_report.py [--csv FILE] [--target sm_90 ...] [--dtype float32 ...]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import triton
import triton_aot as aot

COLUMNS = {
    "case": "{:18}",
    "layout": "{:13}",
    "dtype": "{:8}",
    "kernel": "{:24}",
    "target": "{:7}",
    "registers": "{:>9}",
    "spills": "{:>6}",
    "shared": "{:>6}",
    "load": "{:>5}",
    "store": "{:>5}",
}


def rows(targets: list[str], dtypes: list[str]) -> Iterator[dict[str, Any]]:
    """One compiled kernel each; a kernel that several cases share appears once for each."""
    known = {str(dtype).removeprefix("torch."): dtype for dtype in aot.DTYPES}
    for case, layout, dtype, target in product(aot.CASES, ("contiguous", "channels_last"), dtypes, targets):
        for launch in aot.plan(case, known[dtype], target, channels_last=layout == "channels_last"):
            compiled = asdict(aot.compile_launch(launch, target))
            row = {"case": case, "layout": layout, "dtype": dtype} | compiled
            yield {name: row[name] for name in COLUMNS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument("--target", nargs="+", choices=aot.TARGETS, default=list(aot.TARGETS))
    names = [str(dtype).removeprefix("torch.") for dtype in aot.DTYPES]
    parser.add_argument("--dtype", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    line = " ".join(COLUMNS.values())
    print(f"Triton {triton.__version__}; spills, shared, load and store in bytes")
    print(line.format(*COLUMNS))
    table = []
    with tempfile.TemporaryDirectory() as cache, triton.knobs.cache.scope():
        triton.knobs.cache.dir = cache
        for row in rows(arguments.target, arguments.dtype):
            print(line.format(*row.values()), flush=True)
            table.append(row)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS))
            writer.writeheader()
            writer.writerows(table)
    spilled = sum(row["spills"] > 0 for row in table)
    print(f"{len(table)} kernels, {spilled} with spills")
    sys.exit(spilled > 0)


if __name__ == "__main__":
    main()
