"""How much accuracy a swap costs, and what brings it back: timm's test_resnet on the digits, from nothing.

Trains a stock model, swaps every window pool for SoftPool, then recalibrates it and trains it in four ways; the stock
model gets the same further training as a control. Prints a table, with the paired difference to the control and its
interval, and writes recovery.csv.

    python benchmarks/recovery.py [--seeds 5] [--csv recovery.csv]
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from copy import deepcopy
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.ablate.stats import Difference
from poolswap.adapt import Answers, Recipe, evaluate, finetune, load_data, loaders, recalibrate

SIZE = (3, 32, 32)
FURTHER = {"epochs": 5, "lr": 1e-3}
CONTROL = "control: stock, 5 more epochs"


class Seen(NamedTuple):
    """Top-1 and shift consistency in percent, loss, and of each image 100 where it is right, on validation images."""

    top1: float
    loss: float
    shift: float
    right: torch.Tensor


def one_seed(seed: int, folder: Path) -> dict[str, Seen]:
    """What each model does, by its name."""
    stock, spec = load_model("timm:test_resnet", num_classes=10, input_size=SIZE, seed=seed)
    data = load_data("digits", input_size=SIZE)
    images, val = loaders(data, seed=seed)
    found = {}

    def note(name: str, model: torch.nn.Module) -> None:
        answers: list[Answers] = []
        seen = evaluate(model, val, answers=answers.append)
        right = 100.0 * torch.cat([batch.correct for batch in answers])
        found[name] = Seen(seen.top1, seen.loss, seen.shift_consistency or 0.0, right)

    finetune(stock, data, Recipe(epochs=6, seed=seed), folder / "stock", spec=spec)
    note("stock, 6 epochs", stock)
    sites = find_pools(stock, SIZE)
    plan = make_plan(sites, "all")
    soft = deepcopy(stock)
    swap_pools(soft, plan)
    note("swapped", soft)
    recalibrated = deepcopy(soft)
    recalibrate(recalibrated, images)
    note("swapped, recalibrated", recalibrated)
    ways: dict[str, tuple[str, dict[str, float]]] = {
        "plain": ("soft", {}),
        "anneal": ("soft", {"anneal": 0.6}),
        "learn beta": ("soft:beta=learn,start=1", {}),
    }
    for name, (to, extra) in ways.items():
        model, other = deepcopy(stock), make_plan(sites, "all", to)
        swap_pools(model, other)
        recipe = Recipe(seed=seed + 1000, **FURTHER, **extra)
        finetune(model, data, recipe, folder / name, spec=spec, plan=other)
        note(f"swapped, 5 more epochs: {name}", model)
    finetune(recalibrated, data, Recipe(seed=seed + 1000, **FURTHER), folder / "re", spec=spec, plan=plan)
    note("swapped, recalibrated, 5 more epochs: plain", recalibrated)
    finetune(stock, data, Recipe(seed=seed + 1000, **FURTHER), folder / "control", spec=spec)
    note(CONTROL, stock)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--csv", type=Path, default=Path("recovery.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small images: more threads wait for each other
    began, results = time.perf_counter(), defaultdict(list)
    for seed in range(arguments.seeds):
        with TemporaryDirectory() as folder:
            for name, seen in one_seed(seed, Path(folder)).items():
                results[name].append(seen)
    with arguments.csv.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["model", "seed", "top1", "loss", "shift_consistency"])
        rows.writerows(
            [name, seed, *seen[:3]] for name, all_seeds in results.items() for seed, seen in enumerate(all_seeds)
        )
    head = f"top-1 % (mean of {arguments.seeds} seeds ± sd)"
    print(f"| model | {head} | to the control [95 %] | loss | shift consistency % |\n|---|--:|--:|--:|--:|")
    control = torch.stack([seen.right for seen in results[CONTROL]])
    for name, all_seeds in results.items():
        top1, loss, shift, right = zip(*all_seeds, strict=True)
        spread = f" ± {stdev(top1):.2f}" if len(top1) > 1 else ""
        delta, low, high = Difference.of(torch.stack(right) - control, scale=100, bound=100).interval()
        paired = "" if name == CONTROL else f"{delta:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(f"| {name} | {mean(top1):.2f}{spread} | {paired} | {mean(loss):.3f} | {mean(shift):.2f} |")
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
