"""Patches of the photographs that scikit-image and scikit-learn bring: 17 classes, harder than digits, no network.

A class is one photograph. It is cut into blocks with a gap between them, and a block belongs to training, validation or
test with all its patches, so no pixel is seen in two of them. A patch is a square of drawn size and place in its block,
turned or mirrored, with drawn contrast and tint, scaled to 64x64. What is drawn depends on the seed alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor

from poolswap.adapt.pixels import Pixels
from poolswap.errors import InputError, MissingExtraError
from poolswap.files import atomic_path, cache_folder, save_tensors

_FILES = {
    "skimage/data": (
        *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png"),
        *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
        *("retina.jpg", "rocket.jpg"),
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
CLASSES = tuple(sorted(Path(name).stem for names in _FILES.values() for name in names))

_SEED = 0
_SIDE = 64  # of a patch
_BLOCK, _GAP = 72, 8  # pixels
_SMALLEST = 48  # of the square that a patch is scaled from; the largest fills its block
_MOST_BLOCKS = 36  # of a photograph
_LARGE = 800  # a photograph with a longer side is halved first: its details are larger than a patch
_CONTRAST, _TINT = 0.2, 0.1  # at most this share more or less
_PATCHES = {"train": 160, "val": 60, "test": 60}  # of each class
_HELD_OUT = 4  # one block in so many is for validation, and another one for test
_TURNS = (None, *Image.Transpose)


class _Patch(NamedTuple):
    pixels: NDArray[np.uint8]  # (64, 64, 3)
    target: int
    group: str


class _Part(NamedTuple):
    pixels: Tensor  # (N, 3, 64, 64), bytes
    targets: Tensor
    groups: list[str]

    @classmethod
    def of(cls, patches: Sequence[_Patch]) -> _Part:
        pixels = torch.from_numpy(np.stack([patch.pixels for patch in patches])).permute(0, 3, 1, 2).contiguous()
        return cls(pixels, torch.tensor([patch.target for patch in patches]), [patch.group for patch in patches])


def check_photographs() -> None:
    """Raise what `load_photographs` would for packages and photographs that are not there."""
    _sources()


def load_photographs(input_size: Sequence[int]) -> tuple[Pixels, Pixels, Pixels]:
    """(train, val, test) of 2,720, 1,020 and 1,020 patches (C, H, W) in [-1, 1]; their `groups` are the blocks.

    Built on the first use from the installed packages (seconds), then read from `poolswap.files.cache_folder`. Raises
    MissingExtraError without scikit-image or scikit-learn, InputError where they lack a photograph.
    """
    sources = _sources()
    key = sha256(json.dumps([_SEED, PIL.__version__]).encode())
    for path in sources:
        key.update(path.read_bytes())
    cached = cache_folder() / f"photographs-{key.hexdigest()[:16]}.safetensors"
    parts = _read(cached)
    if parts is None:
        parts = _build(sources)
        _write(parts, cached)
    made = [Pixels(part.pixels, part.targets, input_size, groups=part.groups) for part in parts.values()]
    return made[0], made[1], made[2]


def _sources() -> list[Path]:
    """The files of the photographs, in the order of CLASSES. No package is imported, and none fetches anything."""
    found = []
    for place, names in _FILES.items():
        package, _, folder = place.partition("/")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            title = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
            raise MissingExtraError(f"{title}, which brings photographs,", "photographs")
        found += [Path(spec.submodule_search_locations[0]) / folder / name for name in names]
    missing = next((path for path in found if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"there is no photograph {missing}", "pip install -U 'poolswap[photographs]'")
    return sorted(found, key=lambda path: path.stem)


def _build(sources: Sequence[Path]) -> dict[str, _Part]:
    patches: dict[str, list[_Patch]] = {name: [] for name in _PATCHES}
    for label, path in enumerate(sources):
        draw = Random(f"{_SEED} {path.stem}")
        with Image.open(path) as opened:
            photograph = opened.convert("RGB")
        if max(photograph.size) > _LARGE:
            photograph = photograph.reduce(2)
        for name, blocks in _split_blocks(photograph.size, draw).items():
            for number in range(_PATCHES[name]):
                left, top = blocks[number % len(blocks)]
                pixels = np.asarray(_patch(photograph, left, top, draw))
                patches[name].append(_Patch(pixels, label, f"{path.stem} {left},{top}"))
    return {name: _Part.of(drawn) for name, drawn in patches.items()}


def _split_blocks(size: tuple[int, int], draw: Random) -> dict[str, list[tuple[int, int]]]:
    """The corners of the blocks of a photograph of (width, height), for each part of the data."""
    columns, rows = (range(0, side - _BLOCK + 1, _BLOCK + _GAP) for side in size)
    blocks = [(left, top) for top in rows for left in columns]
    blocks = sorted(blocks, key=lambda _: draw.random())[:_MOST_BLOCKS]
    held_out = len(blocks) // _HELD_OUT
    val, test, train = blocks[:held_out], blocks[held_out : 2 * held_out], blocks[2 * held_out :]
    return {"train": train, "val": val, "test": test}


def _patch(photograph: Image.Image, left: int, top: int, draw: Random) -> Image.Image:
    # Random.random is the one draw that Python promises to repeat in every version.
    side = _SMALLEST + int(draw.random() * (_BLOCK - _SMALLEST + 1))
    x, y = (corner + int(draw.random() * (_BLOCK - side + 1)) for corner in (left, top))
    patch = photograph.crop((x, y, x + side, y + side)).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    turn = _TURNS[int(draw.random() * len(_TURNS))]
    patch = patch if turn is None else patch.transpose(turn)
    contrast = 1 + _CONTRAST * (2 * draw.random() - 1)
    tints = [1 + _TINT * (2 * draw.random() - 1) for _ in range(3)]
    toned = (128 + (np.arange(256.0) - 128) * contrast) * np.array(tints)[:, None]
    return patch.point(toned.round().clip(0, 255).astype(int).ravel().tolist())


def _read(path: Path) -> dict[str, _Part] | None:
    """The parts of a cached file; None where there is none, or one that is damaged."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            parts = {
                name: _Part(file.get_tensor(f"{name}.pixels"), file.get_tensor(f"{name}.targets"), groups)
                for name, groups in json.loads(said["groups"]).items()
            }
        return parts if _digest(parts) == said["digest"] else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _write(parts: dict[str, _Part], path: Path) -> None:
    tensors = {f"{name}.pixels": part.pixels for name, part in parts.items()}
    tensors |= {f"{name}.targets": part.targets for name, part in parts.items()}
    said = {"groups": json.dumps({name: part.groups for name, part in parts.items()}), "digest": _digest(parts)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, force=True) as temporary:
            save_tensors(tensors, temporary, said)
    except (OSError, InputError):
        return  # it is built again the next time


def _digest(parts: dict[str, _Part]) -> str:
    return sha256("".join(_pixels(part).digest for part in parts.values()).encode()).hexdigest()


def _pixels(part: _Part) -> Pixels:
    return Pixels(part.pixels, part.targets, (3, _SIDE, _SIDE), groups=part.groups)
