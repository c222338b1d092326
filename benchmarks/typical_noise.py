"""The noise that `poolswap ablate --detect` takes where a folder has none of its own.

Of every variant in the runs folders the standard deviations of top-1, in points: of a seed, of an image, and of an
image in one seed beside both. Each patch stands for itself here: the noise is of single images, as those of most
data are. Prints a table and writes it as CSV; `poolswap.ablate.power.TYPICAL` has its medians.

    python benchmarks/typical_noise.py densenet operators [--csv docs/typical-noise.csv]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from poolswap.ablate.report import summarise
from poolswap.ablate.runs import RunFolder
from poolswap.files import csv_of, write_text

PARTS = ("seeds", "images", "both")


class Ungrouped(RunFolder):
    """A runs folder whose images each stand for themselves."""

    def groups(self) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--csv", type=Path, default=Path("docs/typical-noise.csv"))
    arguments = parser.parse_args()
    rows = [
        {"run": path.name, "variant": row.name, "seeds": found.noise_seeds}
        | {"images": found.noise_images, "both": found.noise_both}
        for path in arguments.runs
        for row in summarise([Ungrouped(path)]).rows
        if (found := row.top1_compared) is not None
    ]
    write_text(arguments.csv, csv_of(rows), force=True)
    print("| study | variant | a seed | an image | an image in a seed |\n|---|---|--:|--:|--:|")
    rows.append({"run": "median", "variant": ""} | {part: median(row[part] for row in rows) for part in PARTS})
    for row in rows:
        print(f"| {row['run']} | {row['variant']} | " + " | ".join(f"{row[part]:.1f}" for part in PARTS) + " |")


if __name__ == "__main__":
    main()
