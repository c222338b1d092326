"""Put the accuracy of 8 bits into docs/export.md: stock and swapped networks, trained alike, before and after.

python benchmarks/export_int8.py [--seeds 3] [--page PAGE] [--csv FILE]

timm's test_resnet on the digits and the small resnet of photo_nets.py on photographs, from nothing, by one recipe; the
ONNX file of the last epoch is quantised by onnxruntime, calibrated on training images, judged on validation images.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from cpu_report import markdown, put_between_markers, require_markers

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.adapt import Recipe, finetune, load_data, make_loader
from poolswap.checkpoint import load_checkpoint
from poolswap.export import Images, Int8, export_model
from poolswap.surgery.plan import Plan

HERE = Path(__file__).parent
BATCH = 16
HEAD = ["data", "pools", "top-1 %", "in 8 bits", "points lost", "same answers %"]


class Case(NamedTuple):
    """Which network learns which images, and how."""

    data: str
    model: str
    input_size: tuple[int, int, int]
    recipe: dict[str, float]


CASES = [
    Case("digits", "timm:test_resnet", (3, 32, 32), {"epochs": 5}),
    Case("photographs", f"{HERE / 'photo_nets.py'}:resnet", (3, 64, 64), {"epochs": 4, "lr": 0.004}),
]


def trained_in_eight_bits(case: Case, seed: int, *, swap: bool) -> Int8:
    """What 8 bits cost the network, trained with SoftPool in the place of every pool or as it is."""
    data = load_data(case.data, input_size=case.input_size)
    model, spec = load_model(case.model, num_classes=data.num_classes, input_size=case.input_size, seed=seed)
    plan = Plan(model=spec.reference, input_size=spec.input_size)
    if swap:
        plan = make_plan(find_pools(model, spec.input_size), include_global=True, model=spec.reference)
        swap_pools(model, plan)
    with TemporaryDirectory() as folder:
        made = finetune(
            model, data, Recipe(seed=seed, **case.recipe), Path(folder) / "training", spec=spec, plan=plan, device="cpu"
        )
        kept, manifest = load_checkpoint(made.last_path, trust_code=True)
        images = Images(make_loader(data, "plain", BATCH), make_loader(data, "val", BATCH))
        report = export_model(kept, manifest, Path(folder) / "net.onnx", verify=False, int8=images)
    assert report.int8 is not None
    return report.int8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "export.md")
    parser.add_argument("--csv", type=Path, default=HERE / "export_int8.csv")
    options = parser.parse_args()
    require_markers(options.page, "int8")
    torch.set_num_threads(1)  # small images: more threads wait for each other
    rows, lines = [], []
    for case in CASES:
        for swap in (False, True):
            found = [trained_in_eight_bits(case, seed, swap=swap) for seed in range(options.seeds)]
            pools = "SoftPool" if swap else "stock"
            rows += [
                [case.data, pools, seed, f.images, f.top1_float, f.top1, f.agreement] for seed, f in enumerate(found)
            ]
            before, after = mean(f.top1_float for f in found), mean(f.top1 for f in found)
            numbers = [before, after, before - after, mean(f.agreement for f in found)]
            lines.append([case.data, pools, *(f"{number:.2f}" for number in numbers)])
            print(*lines[-1], flush=True)
    with options.csv.open("w", newline="") as file:
        head = ["data", "pools", "seed", "images", "top1_float", "top1_int8", "same_answers"]
        csv.writer(file, lineterminator="\n").writerows([head, *rows])
    put_between_markers(options.page, "int8", f"Means of {options.seeds} seeds.\n\n{markdown(HEAD, lines)}")


if __name__ == "__main__":
    main()
