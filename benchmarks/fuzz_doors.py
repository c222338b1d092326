"""Damaged and hostile input for every parser of files and names: each gives a value or a PoolswapError, nothing else.

    python benchmarks/fuzz_doors.py [--inputs N] [--seed S]

Starts from sound documents and exchanges, removes and nests parts of them, or damages their bytes. Prints a table of
how many inputs each door took and refused; exit code 1 where one of them raised anything else.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import traceback
from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.ablate.grid import make_grid
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.study import Study, parse_counts
from poolswap.adapt import Recipe
from poolswap.checkpoint import save_checkpoint
from poolswap.errors import PoolswapError
from poolswap.images.picture import read_picture
from poolswap.manifest import read_manifest
from poolswap.models.load import parse_input_size, parse_model_args
from poolswap.models.names import resolve
from poolswap.surgery.plan import Plan
from poolswap.surgery.selectors import Candidates, select

SIZE = (3, 32, 32)
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3,
        2**31,
        2**63,
        2**64,
        2**70,
        -(2**63),
        1e30,
        1e308,
        -0.0,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "0", "all", "$", "\0", "../../x", "/dev/zero", "__class__", "a.py:b", "é", "x" * 300, "9" * 5000),
    *([], [[]], [0], [-1, 2], {}, {"a": 1}, {"": {}}),
]
TEXTS = (
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
    "all",
    "first",
    "timm:",
    "\0",
    "/",
    "é",
    " ",
)


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
    for _ in range(draw.randint(1, 20)):
        if made:
            made[draw.randrange(len(made))] = draw.randrange(256)
    return bytes(made[: draw.randrange(len(made) + 1)] if draw.random() < 0.3 else made)


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
    manifest = json.loads(save_checkpoint(model, checkpoint, spec=spec, plan=plan).model_dump_json())
    raw = checkpoint.read_bytes()
    start = raw[: 8 + int.from_bytes(raw[:8], "little")]
    header, candidates = json.loads(start[8:]), Candidates.of(sites)
    sound = {
        "plan": json.loads(plan.dumps("json")),
        "study": study.model_dump(mode="json"),
        "recipe": Recipe().model_dump(),
    }

    def metadata(draw: random.Random) -> object:
        header["__metadata__"]["poolswap"] = json.dumps(mutated(manifest, draw))
        text = json.dumps(header).encode()
        forged.write_bytes(len(text).to_bytes(8, "little") + text + raw[len(start) :])
        return read_manifest(forged)

    def bytes_of_a_checkpoint(draw: random.Random) -> object:
        forged.write_bytes(damaged(start, draw) + raw[len(start) :])
        return read_manifest(forged)

    def document(kind: Any, name: str) -> Callable[[random.Random], object]:
        def read(draw: random.Random) -> object:
            path = file.with_suffix(draw.choice([".json", ".yaml"]))
            made = mutated(sound[name], draw)
            text = json.dumps(made) if path.suffix == ".json" or draw.random() < 0.5 else yaml.safe_dump(made)
            path.write_bytes(damaged(text.encode(), draw) if draw.random() < 0.2 else text.encode())
            return kind.read(path)

        return read

    def results(draw: random.Random) -> object:
        made = mutated(json.loads(grid.model_dump_json()), draw)
        (runs.path / "grid.json").write_text(json.dumps(made))
        return runs.grid()

    def picture(draw: random.Random) -> object:
        file.write_bytes(damaged(draw.choice(pictures), draw))
        return read_picture(file)

    def text(draw: random.Random) -> str:
        return "".join(draw.choice(TEXTS) for _ in range(draw.randint(0, 6)))

    pictures = _pictures()
    return {
        "metadata of a checkpoint": metadata,
        "bytes of a checkpoint": bytes_of_a_checkpoint,
        "plan": document(Plan, "plan"),
        "study": document(Study, "study"),
        "recipe": document(Recipe, "recipe"),
        "grid of a run": results,
        "picture": picture,
        "name of a model": lambda draw: resolve(text(draw)),
        "selector": lambda draw: select(text(draw), candidates),
        "counts": lambda draw: parse_counts(text(draw), 5),
        "input size": lambda draw: parse_input_size(text(draw)),
        "model arguments": lambda draw: parse_model_args([f"a={text(draw)}", text(draw)]),
    }


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
        for number, (name, read) in enumerate((every := doors(Path(folder))).items()):
            draw = random.Random(seed * 1_000_003 + number)
            taken = refused = wrong = 0
            for _ in range(-(-inputs // len(every))):
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
