"""Damaged and hostile input for every parser of files and names: each gives a value or a PoolswapError, nothing else.

    python benchmarks/fuzz_doors.py [--inputs N] [--seed S]

Starts from sound documents and exchanges, removes and nests parts of them, or damages their bytes. Prints a table of
how many inputs each door took and refused; exit code 1 where one of them raised anything else.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
import sys
import tempfile
import traceback
from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.ablate.check import parse_check
from poolswap.ablate.grid import make_grid
from poolswap.ablate.report.summary import summarise
from poolswap.ablate.run import parse_shard
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.study import Study, parse_counts
from poolswap.adapt import Recipe
from poolswap.budget import parse_bytes
from poolswap.checkpoint import save_checkpoint
from poolswap.cli.parsing import parse_input_size, parse_pairs
from poolswap.errors import PoolswapError
from poolswap.images.picture import read_picture
from poolswap.manifest import Manifest, read_manifest
from poolswap.models.names import resolve
from poolswap.models.package import read_package
from poolswap.models.weights import read_state_dict
from poolswap.operators.registry import parse_operator, split_operators
from poolswap.surgery.plan import Plan
from poolswap.surgery.selectors import Candidates, select

SIZE = (3, 32, 32)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, 2**70, -(2**63)),
    *(1e30, 1e308, -0.0, float("nan"), float("inf")),
    *("", "x", "0", "all", "$", "\0", "../../x", "/dev/zero", "__class__", "a.py:b", "é", "x" * 300, "9" * 5000),
    *("\x1b[2J", "[/x]", "\u202e", "\ud800"),
    *([], [[]], [0], [-1, 2], {}, {"a": 1}, {"": {}}),
]
TEXTS = (
    *(
        "",
        "a",
        "#",
        "1",
        "9" * 5000,
        ",",
        ":",
        "..",
        "=",
        "*",
        "[",
        "]",
        "\0",
        "/",
        "é",
        " ",
        "\x1b[2J",
        "\ud800",
        "²",
        "\u0661",
    ),
    *(
        "all",
        "first",
        "timm:",
        "hf-hub:",
        "soft",
        "lp:p=3",
        "learn=true",
        "beta",
        "top1 >= ",
        " for adapt=",
        "1e999",
        "8G",
    ),
)
RESULT: dict[str, Any] = {
    **{"top1": 90.0, "top5": 99.0, "loss": 0.1, "ece": 0.02, "shift_consistency": 95.0},
    "record": {
        **{"images": 8, "correct": "9w==", "steady": "9w=="},
        **dict.fromkeys(("loss", "margin", "confidence"), b64encode(struct.pack("<8f", *[0.5] * 8)).decode()),
    },
    **{"parameters": 1234, "drift": 0.1, "sites": [{"path": "maxpool", "local": 0.1}], "seconds": 3.5},
    "costs": [
        {
            **{"direction": "forward", "batch": 2, "milliseconds": 1.5, "memory": 4096, "control_memory": 4096},
            "ratio": {"median": 1.1, "low": 1.0, "high": 1.2},
            "noise": {"median": 1.0, "low": 0.9, "high": 1.1},
        }
    ],
    "environment": {"torch": "2"},
}


# A part of the others' inputs: these look through a thousand names, every installed package, a whole study.
SHARES = {"name of a model": 0.1, "operator": 0.25, "results of a run": 0.25}


def mutated(document: Any, draw: random.Random) -> Any:
    """A copy with one to four parts exchanged, removed or nested."""
    made = json.loads(json.dumps(document))
    for _ in range(draw.randint(1, 4)):
        place, key = made, None
        for _ in range(draw.randint(1, 8)):
            keys = (
                list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
            )
            if not keys:
                break
            parent, key = place, draw.choice(keys)
            place = place[key]
        if key is None:
            return deepcopy(draw.choice(VALUES))
        kind = draw.randrange(4)
        if kind == 0:
            parent.pop(key)
        elif kind == 1:
            parent[key] = {"a": place} if draw.random() < 0.5 else [place] * draw.randint(0, 3)
        else:
            parent[key] = deepcopy(draw.choice(VALUES))
    return made


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them changed, or cut off."""
    made = bytearray(raw)
    for _ in range(draw.choice([1, 2, 20])):
        if made:
            made[draw.randrange(len(made))] = draw.randrange(256)
    return bytes(made[: draw.randrange(len(made) + 1)] if draw.random() < 0.3 else made)


def typed(draw: random.Random, *sound: str) -> str:
    """Parts of texts in a row, or a sound text with some of them put in, or in the place of a character."""
    if draw.random() < 0.5:
        return "".join(draw.choice(TEXTS) for _ in range(draw.randint(0, 6)))
    made = draw.choice(sound)
    for _ in range(draw.randint(0, 3)):
        place = draw.randrange(len(made) + 1)
        made = made[:place] + draw.choice(TEXTS) + made[place + draw.randint(0, 1) :]
    return made


def doors(folder: Path) -> dict[str, Callable[[random.Random], object]]:
    """By name, what reads one random input."""
    model, spec = load_model("timm:test_resnet", num_classes=3, input_size=SIZE)
    sites = find_pools(model, SIZE)
    plan = make_plan(sites, model=spec.reference, input_size=SIZE)
    study = Study.make({"model": spec.reference, "data": "digits", "adapt": ["scratch"], "seeds": 1})
    runs = RunFolder(folder / "run")
    grid = make_grid(study, sites)
    runs.open(study, grid)
    swap_pools(model, plan)
    checkpoint, forged, file = folder / "a.safetensors", folder / "b.safetensors", folder / "file"
    saved = save_checkpoint(model, checkpoint, spec=spec, plan=plan, example=[torch.rand(2, *SIZE)])
    manifest = json.loads(saved.model_dump_json())
    raw = checkpoint.read_bytes()
    start = raw[: 8 + int.from_bytes(raw[:8], "little")]
    tensors = len(raw) - len(start)
    header, candidates = json.loads(start[8:]), Candidates.of(sites)
    sound = {
        "plan": json.loads(plan.dumps("json")),
        "study": study.model_dump(mode="json"),
        "recipe": Recipe().model_dump(),
        "package": {"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {"input_size": list(SIZE)}},
    }
    sound["package"]["model_args"] = {"in_chans": 3, "layers": [1, 1, 1, 1]}

    def forge(start: bytes) -> Manifest:
        """A checkpoint that begins so. What is said of its tensors is read, the tensors are not: they are a hole."""
        with forged.open("wb") as file:
            file.write(start)
            file.truncate(len(start) + tensors)
        return read_manifest(forged)

    def metadata(draw: random.Random) -> object:
        header["__metadata__"]["poolswap"] = json.dumps(mutated(manifest, draw))
        text = json.dumps(header).encode()
        return forge(len(text).to_bytes(8, "little") + text).inputs

    def bytes_of_a_checkpoint(draw: random.Random) -> object:
        return forge(damaged(start, draw))

    def document(kind: Any, name: str) -> Callable[[random.Random], object]:
        def read(draw: random.Random) -> object:
            path = file.with_suffix(draw.choice([".json", ".yaml"]))
            made = mutated(sound[name], draw)
            text = json.dumps(made) if path.suffix == ".json" or draw.random() < 0.9 else yaml.safe_dump(made)
            path.write_bytes(damaged(text.encode(), draw) if draw.random() < 0.2 else text.encode())
            return kind.read(path)

        return read

    def grid_of_a_run(draw: random.Random) -> object:
        made = mutated(json.loads(whole_grid), draw)
        (runs.path / "grid.json").write_text(json.dumps(made))
        return runs.grid()

    def results_of_a_run(draw: random.Random) -> object:
        (runs.path / "grid.json").write_text(whole_grid)
        for key in grid.trials:
            (runs.trial(key) / "result.json").write_text(
                json.dumps(mutated(RESULT, draw) if draw.random() < 0.5 else RESULT)
            )
        return summarise([runs])

    def package(draw: random.Random) -> object:
        (folder / "config.json").write_text(json.dumps(mutated(sound["package"], draw)))
        return read_package(f"local-dir:{folder}")

    def weights(draw: random.Random) -> object:
        suffix = draw.choice(list(weights_files))
        file.with_suffix(suffix).write_bytes(damaged(weights_files[suffix], draw))
        return read_state_dict(file.with_suffix(suffix))

    def picture(draw: random.Random) -> object:
        file.write_bytes(damaged(draw.choice(pictures), draw))
        return read_picture(file)

    whole_grid, pictures, weights_files = grid.model_dump_json(), _pictures(), _weights()
    for key in grid.trials:
        runs.trial(key).mkdir()
    return {
        "metadata of a checkpoint": metadata,
        "bytes of a checkpoint": bytes_of_a_checkpoint,
        "plan": document(Plan, "plan"),
        "study": document(Study, "study"),
        "recipe": document(Recipe, "recipe"),
        "grid of a run": grid_of_a_run,
        "results of a run": results_of_a_run,
        "configuration of a package": package,
        "weights": weights,
        "picture": picture,
        "name of a model": lambda draw: resolve(
            typed(draw, "resnet18", "timm:test_resnet", "torchvision:vgg11", "a.py:b")
        ),
        "operator": lambda draw: [parse_operator(o) for o in split_operators(typed(draw, "soft", "lp:p=3", "max,avg"))],
        "selector": lambda draw: select(typed(draw, "all", "first:1,#1", "maxpool*"), candidates),
        "check of a report": lambda draw: parse_check(typed(draw, "top1_delta >= -0.5", "loss < 1 for adapt=none")),
        "shard": lambda draw: parse_shard(typed(draw, "1/4", "12/345")),
        "size of memory": lambda draw: parse_bytes(typed(draw, "8G", "500 MiB", "123456")),
        "counts": lambda draw: parse_counts(typed(draw, "0..all", "1,3,5"), 5),
        "input size": lambda draw: parse_input_size(typed(draw, "3,224,224", "1,4000")),
        "model arguments": lambda draw: parse_pairs([typed(draw, "a=1", "layers=[1,2]", "b=x")], "--model-arg"),
    }


def _weights() -> dict[str, bytes]:
    """By suffix: a state dict in torch's format, in its older one, and in safetensors."""
    state, new, old = {"a.weight": torch.rand(3, 4), "b": torch.zeros(2, dtype=torch.int64)}, BytesIO(), BytesIO()
    torch.save(state, new)
    torch.save({"state_dict": state, "epoch": 3}, old, _use_new_zipfile_serialization=False)
    return {".pt": new.getvalue(), ".pth": old.getvalue(), ".safetensors": save(state)}


def _pictures() -> list[bytes]:
    from PIL import Image

    made = []
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        file = BytesIO()
        Image.linear_gradient("L").resize((24, 24)).save(file, form)
        made.append(file.getvalue())
    return made


def run(inputs: int, seed: int) -> dict[str, tuple[int, int, int]]:
    """By door: (taken, refused, anything else) of so many inputs in all. The findings are printed on stderr."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        every = doors(Path(folder))
        share = inputs / sum(SHARES.get(name, 1) for name in every)
        for number, (name, read) in enumerate(every.items()):
            draw = random.Random(seed * 1_000_003 + number)
            taken = refused = wrong = 0
            for _ in range(math.ceil(share * SHARES.get(name, 1))):
                try:
                    read(draw)
                    taken += 1
                except PoolswapError:
                    refused += 1
                except Exception:
                    wrong += 1
                    print(f"{name}: {traceback.format_exc(limit=-3)}", file=sys.stderr)
            found[name] = taken, refused, wrong
    return found


def main() -> int:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = run(options.inputs, options.seed)
    print("| door | inputs | taken | refused | anything else |\n|---|--:|--:|--:|--:|")
    for name, counts in found.items():
        print(f"| {name} | {sum(counts):,} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return int(any(wrong for *_, wrong in found.values()))


if __name__ == "__main__":
    sys.exit(main())
