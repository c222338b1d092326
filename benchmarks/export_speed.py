"""Exports with every pooling layer replaced: parity in their own runtime, and time beside the stock model's export.

python benchmarks/export_speed.py [--to onnx,pt2] [MODEL[@C,H,W] ...] > export_speed.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import torch

from poolswap.checkpoint import save_checkpoint
from poolswap.cli.parsing import parse_input_size
from poolswap.errors import PoolswapError
from poolswap.export import default_path, export_model
from poolswap.models.load import create_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

MODELS = [
    "resnet50",
    "densenet121",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "vgg16_bn",
    "torchvision:s3d@3,16,224,224",
]


def main() -> None:
    """One CSV line a model and format, as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--to", default="onnx,pt2")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["model", "pools", "to", "difference", "ms", "stock ms", "ratio"])
    for text in arguments.models:
        name, _, size = text.partition("@")
        for to in arguments.to.split(","):
            table.writerow([text, *measure(name, parse_input_size(size) if size else None, to)])
            sys.stdout.flush()


def measure(name: str, size: tuple[int, ...] | None, to: str) -> list[object]:
    """The line of one model and format: number of pools, format, difference, times."""
    model, spec = create_model(name, input_size=size)
    plan = make_plan(find_pools(model, spec.input_size), include_global=True)
    swap_pools(model, plan)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        manifest = save_checkpoint(model, path, spec=spec, plan=plan)
        try:
            report = export_model(model, manifest, default_path(path, to), to=to, bench=True, force=True)
        except PoolswapError as error:
            return [len(plan.paths), to, error.message]
    assert report.speed is not None
    speed = report.speed
    times = [f"{speed.milliseconds:.1f}", f"{speed.stock_milliseconds:.1f}", f"{speed.ratio:.2f}"]
    return [len(plan.paths), to, f"{report.difference:.1e}", *times]


if __name__ == "__main__":
    main()
