"""Put exports with every pooling layer replaced into docs/export.md: parity in their own runtime, nodes, times.

python benchmarks/export_speed.py [--to onnx,onnx+branch+int8] [--rounds 9] [--page PAGE] [--csv FILE] [MODEL ...]

One image, one thread; of the swapped and the stock file in turns the fastest run counts, for whatever else runs on the
machine only ever adds to processor time. The weights are random, the statistics of the normalisations those of noise:
without them the activations of torchvision's inception_v3 grow up to 1e10, as no trained network's do. Where googlenet
is among the models, the time of its pools' nodes by kind, as onnxruntime's profile has it.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from cpu_report import markdown, put_between_markers, require_markers

from poolswap.bench.environment import environment, threads
from poolswap.checkpoint import save_checkpoint
from poolswap.cli.parsing import parse_input_size
from poolswap.errors import PoolswapError
from poolswap.export import Images, default_path, export_model, find_format
from poolswap.export.int8 import quantize
from poolswap.export.job import Job, Runner
from poolswap.models.load import create_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

HERE = Path(__file__).parent
MODELS = [
    "resnet18",
    "resnet50",
    "densenet121",
    "torchvision:googlenet",
    "torchvision:inception_v3",
    "vgg16_bn",
]
FORMS = ["onnx", "onnx+branch", "openvino", "openvino+branch", "openvino+branch+fixed", "onnx+branch+int8"]
# Images of noise that the normalisations and the 8 bits are calibrated on.
CALIBRATION = 4
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "torch"}
PROFILED, REST = "torchvision:googlenet", "everything else"
HEAD = ["model", "pools", "format", "difference", "nodes", "stock nodes", "ms", "stock ms", "ratio"]


def measure(name: str, size: tuple[int, ...] | None, to: str, rounds: int, kinds: Counter[str]) -> list[str]:
    """The line of one model and format; `kinds` gets the profile."""
    model, spec = create_model(name, input_size=size)
    plan = make_plan(find_pools(model, spec.input_size), include_global=True)
    swap_pools(model, plan)
    normalise(model, spec.input_size)
    line, (to, *options) = [name, str(len(plan.paths)), to], to.split("+")
    form = find_format(to)
    noise = [(torch.randn(CALIBRATION, *spec.input_size), torch.zeros(CALIBRATION))]
    images = Images(noise, noise) if "int8" in options else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "swapped.safetensors"
        manifest = save_checkpoint(model, path, spec=spec, plan=plan)
        swapped, stock = default_path(path, to), default_path(path.with_name("stock.safetensors"), to)
        try:
            report = export_model(model, manifest, swapped, to=to, branch="branch" in options, int8=images)
        except PoolswapError as error:
            return [*line, error.message]
        job = Job(model.eval(), manifest, (torch.randn(1, *spec.input_size),))
        other = replace(job, model=deepcopy(model))
        restore(other.model)
        form.write(replace(other, arguments=(torch.randn(2, *spec.input_size),)), stock)
        if images:
            quantize(stock, images)
        if "fixed" in options:
            for file in (swapped, stock):
                fix_sizes(file, job.arguments[0].shape)
        ms, stock_ms = fastest(form.runner(job, swapped), form.runner(other, stock), job.arguments, rounds)
        if (name, to, options) == (PROFILED, "onnx", []):
            kinds.update(profile(swapped, job.arguments, plan.paths, rounds))
        counts = [nodes(file) if to == "onnx" else "" for file in (swapped, stock)]
    return [*line, f"{report.difference:.1e}", *counts, f"{ms:.1f}", f"{stock_ms:.1f}", f"{ms / stock_ms:.2f}"]


def normalise(model: torch.nn.Module, size: Sequence[int]) -> None:
    """Give the normalisations the statistics of noise."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(CALIBRATION, *size))


def fix_sizes(file: Path, shape: Sequence[int]) -> None:
    """Rewrite OpenVINO's file for one batch size too."""
    import openvino

    model = openvino.Core().read_model(file)
    model.reshape(list(shape))
    fixed = file.with_name(f"fixed-{file.name}")
    openvino.save_model(model, fixed, compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        fixed.with_suffix(suffix).replace(file.with_suffix(suffix))


def fastest(one: Runner, other: Runner, arguments: tuple[torch.Tensor, ...], rounds: int) -> list[float]:
    """Milliseconds of processor time of each, taken in turns, after an untimed round."""
    times: list[list[float]] = []
    for _ in range(rounds + 1):
        times.append([])
        for run in (one, other):
            begin = time.process_time()
            run(arguments)
            times[-1].append((time.process_time() - begin) * 1e3)
    return [min(each) for each in zip(*times[1:], strict=True)]


def profile(file: Path, arguments: tuple[torch.Tensor, ...], sites: Sequence[str], rounds: int) -> Counter[str]:
    """Microseconds of all runs, by kind of node at the pools, and of everything else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.enable_profiling, options.profile_file_prefix = True, str(file.with_name("profile"))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for _ in range(rounds):
        session.run(None, {"input": arguments[0].numpy()})
    found: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            pooling = event["name"].startswith(tuple(f"{site}/" for site in sites))
            found[event["args"]["op_name"] if pooling else REST] += event["dur"]
    return found


def shares(kinds: Counter[str]) -> str:
    """Percent of the time, the largest first."""
    whole = sum(kinds.values())
    return ", ".join(f"{kind} {100 * time / whole:.0f} %" for kind, time in kinds.most_common(10))


def nodes(file: Path) -> str:
    """How many nodes an ONNX file has, those of both sides of a branch too."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    sides = [side.g for node in graph.node for side in node.attribute if side.type == onnx.AttributeProto.GRAPH]
    return str(sum(len(each.node) for each in (graph, *sides)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--to", default=",".join(FORMS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "export.md")
    parser.add_argument("--csv", type=Path, default=HERE / "export.csv")
    options = parser.parse_args()
    require_markers(options.page, "export")
    formats, kinds = options.to.split(","), Counter[str]()
    lines = dict.fromkeys((name, to) for name in MODELS for to in FORMS)
    if options.csv.is_file():
        with options.csv.open(newline="") as file:
            lines |= {(line[0], line[2]): line for line in list(csv.reader(file))[1:]}
    with threads(1):
        for text in options.models:
            name, _, size = text.partition("@")
            for to in formats:
                line = measure(name, parse_input_size(size) if size else None, to, options.rounds, kinds)
                lines[name, to] = line
                print(*line, flush=True)
                write(options, [line for line in lines.values() if line], kinds)


def write(options: argparse.Namespace, lines: list[list[str]], kinds: Counter[str]) -> None:
    """The file and the page, after each line, as a run takes long; lines of earlier runs stay."""
    runtimes = dict.fromkeys(RUNTIMES[line[2].partition("+")[0]] for line in lines)
    used = ", ".join(f"{name} {version(name)}" for name in ("torch", *runtimes))
    about = f"{environment().processor}, one thread, {used}. Processor time, fastest of {options.rounds} rounds."
    with options.csv.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEAD, *lines])
    text = f"{about}\n\n{markdown(HEAD, lines)}"
    if kinds:
        text += f"\n\nWhere {PROFILED}'s time goes, by kind of node at the pools: {shares(kinds)}."
    put_between_markers(options.page, "export", text)


if __name__ == "__main__":
    main()
