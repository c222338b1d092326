"""The README's table and picture, from what other commands have measured and committed.

python benchmarks/front.py [--no-picture]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

from cpu_report import markdown, put_between_markers

ROOT = Path(__file__).resolve().parent.parent
STUDIES = {name: ROOT / "docs" / f"ablate-photographs-{name.lower()}.csv" for name in ("ResNet", "VGG")}
COSTS = ROOT / "docs" / "ablate-photographs-operators.csv"
MODELS = ROOT / "benchmarks" / "cpu_models.csv"
PICTURE = ROOT / "docs" / "front.png"
SHOWN = ("soft", "avg", "lp", "lip", "ada", "blur")
SHADES = {"max": "#8a8f98", "avg": "#8a8f98", "soft": "#c2410c"}

Row = Mapping[str, str]


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def studies() -> dict[str, list[dict[str, str]]]:
    """The committed studies on photographs."""
    return {name: rows_of(path) for name, path in STUDIES.items()}


def table(studies: dict[str, list[dict[str, str]]]) -> str:
    """Quality, speed and memory of SoftPool in the first and in all layers of each network, beside its control."""
    head = ["network", "SoftPool in", "top-1 %", "to stock [95 %]", "verdict", "loss", "shift %", "time", "memory"]
    return markdown(head, [_line(name, row) for name, rows in studies.items() for row in (rows[0], rows[1], rows[-1])])


def _line(name: str, row: Row) -> list[str]:
    costs = [f"{float(row[key]):.2f}" for key in ("forward_ratio", "training_memory_ratio")]
    measured = [_percent(row["shift_consistency"]), *costs]
    if not row["to"]:
        return [name, "none, the control", _percent(row["top1"]), "", "", f"{float(row['loss']):.3f}", *measured]
    low, high, delta = (f"{float(row[key]):+.1f}" for key in ("top1_low", "top1_high", "top1_delta"))
    layers = f"{row['layers']} pool{'s' if int(row['layers']) > 1 else ''}"
    loss = f"{float(row['loss']):.3f}, {row['loss_verdict']}"
    return [name, layers, _percent(row["top1"]), f"{delta} [{low}, {high}]", row["top1_verdict"], loss, *measured]


def _percent(text: str) -> str:
    return f"{float(text):.1f}"


def models(rows: list[dict[str, str]]) -> str:
    """In a sentence, what a swap costs whole models."""
    names = dict.fromkeys(row["model"].rpartition(":")[2] for row in rows)
    taken = {way: [float(row["ratio"]) for row in rows if row["direction"] == way] for way in ("forward", "training")}
    ranges = {way: f"{min(ratios):.2f} to {max(ratios):.2f} times" for way, ratios in taken.items()}
    return (
        f"Whole models with SoftPool in every pooling layer ({', '.join(names)}):\n{ranges['forward']} the stock "
        f"model's time in a forward, {ranges['training']} in training."
    )


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """A detail of a photograph under four poolings, and what each costs a small network."""
    from matplotlib.figure import Figure

    from poolswap.images import bundled_pictures, compare

    picture = next(one for one in bundled_pictures() if one.name == "chelsea")
    shown = ("max", "avg", "soft:beta=10")
    found = compare(picture, shown, [5], restore="nearest").results
    top, left, side = 60, 150, 110
    figure = Figure(figsize=(10, 2.7), dpi=160, facecolor="white", layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.5])
    photographs = [
        ("the photograph", picture.pixels),
        *((f"{one.operator}\nSSIM {one.ssim:.3f}", one.restored) for one in found),
    ]
    for axis, (title, pixels) in zip(axes, photographs, strict=False):
        axis.imshow(pixels[:, top : top + side, left : left + side].permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    of = {row["to"]: row for row in rows}
    names = ["max", *SHOWN]
    times = [float(of[name]["forward_ratio"]) for name in names]
    axis = axes[-1]
    bars = axis.barh(names, times, color=[SHADES.get(name, "#c9cdd3") for name in names])
    axis.bar_label(bars, fmt="%.2f", fontsize=9, padding=2)
    axis.invert_yaxis()
    axis.set_title("time, to the stock network's", fontsize=10)
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.set_xticks([])
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Write the README's parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-picture", action="store_true", help="leave the picture as it is")
    put_between_markers(ROOT / "README.md", "front", f"{table(studies())}\n\n{models(rows_of(MODELS))}")
    if not parser.parse_args().no_picture:
        draw(rows_of(COSTS), PICTURE)


if __name__ == "__main__":
    main()
