"""Heads, and what a learnt beta learns: timm's test_resnet on bundled images, trained from random weights.

Every variant is trained on the same images in the same order from the same weights, seed by seed, as the stock network
is. Prints a table of the differences over the seeds, and draws the betas of the first seed.

    python benchmarks/heads.py [--data digits] [--seeds 5] [--picture docs/operators-betas.png]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import torch

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.adapt import Recipe, evaluate, finetune, load_data, loaders
from poolswap.adapt.betas import LayerBeta, draw_betas, layer_betas

RECIPE = {"epochs": 6, "lr": 2e-3}
STOCK = "stock: max, average, head average"
HEADS = {
    "head gem": "gem",
    "head lse": "lse:learn=true",
    "head soft": "soft",
    "head soft, beta a channel": "soft:beta=channel",
}
LEARNT = "windows and head soft, beta a channel"
SIZES = {"digits": (3, 32, 32)}


def train(name: str, data_name: str, seed: int) -> tuple[float, float, tuple[LayerBeta, ...]]:
    """(top-1, shift consistency, both in percent, betas) on the validation images after a training from scratch."""
    size = SIZES.get(data_name, (3, 64, 64))
    data = load_data(data_name, input_size=size)
    model, spec = load_model("timm:test_resnet", num_classes=data.num_classes, input_size=size, seed=seed)
    plan = None
    sites = find_pools(model, size)
    if name in HEADS:
        plan = make_plan(sites, None, swaps=[("global_pool*", HEADS[name])], include_global=True, init="published")
    elif name == LEARNT:
        plan = make_plan(sites, "all", "soft:beta=channel", include_global=True, init="published")
    if plan:
        swap_pools(model, plan)
    with TemporaryDirectory() as folder:
        finetune(model, data, Recipe(seed=seed, **RECIPE), folder, spec=spec, plan=plan, device="cpu")
    _, val = loaders(data, 64)
    seen = evaluate(model, val)
    betas = layer_betas(model, plan, next(iter(val))[0]) if plan else ()
    return seen.top1, seen.shift_consistency or 0.0, betas


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    found: dict[str, list[tuple[float, float, tuple[LayerBeta, ...]]]] = {}
    for name in (STOCK, *HEADS, LEARNT):
        found[name] = [train(name, options.data, seed) for seed in range(options.seeds)]
        print(name, [round(top1, 2) for top1, _, _ in found[name]], flush=True)
    print("\n| network | top-1 % | difference, points ± sd of the seeds | shift consistency % |\n|---|---|---|---|")
    for name, runs in found.items():
        moved = [run[0] - base[0] for run, base in zip(runs, found[STOCK], strict=True)]
        spread = f" ± {stdev(moved):.2f}" if len(moved) > 1 else ""
        change = "" if name == STOCK else f"{mean(moved):+.2f}{spread}"
        print(f"| {name} | {mean(r[0] for r in runs):.2f} | {change} | {mean(r[1] for r in runs):.2f} |")
    for layer in found[LEARNT][0][2]:
        places = [place for place in layer.position if place is not None]
        place = f"{mean(places):.2f}" if places else "none"
        low, high = min(layer.beta), max(layer.beta)
        print(f"{layer.path} ({layer.op}): start {layer.start:g}, beta {low:.2f}..{high:.2f}, position {place}")
    if options.picture:
        draw_betas(
            found[LEARNT][0][2], options.picture, title=f"test_resnet on {options.data}, {RECIPE['epochs']} epochs"
        )
    print(f"\n{options.seeds} seeds, {time.perf_counter() - began:.0f} s with one thread")


if __name__ == "__main__":
    main()
