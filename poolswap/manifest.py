"""The file of a checkpoint: tensors in safetensors, and in its metadata a manifest under a digest."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from poolswap.errors import CheckError, InputError, in_words, no_file
from poolswap.example import KeptExample
from poolswap.files import atomic_path, save_tensors
from poolswap.fingerprint import Fingerprint
from poolswap.inputs import LARGEST_INPUT, Example
from poolswap.models.load import ModelSpec
from poolswap.models.userfile import split_reference
from poolswap.surgery.plan import Plan

FORMAT = 1
_KEY, _DIGEST = "poolswap", "poolswap-sha256"
# Thousands of tensors and hundreds of sites take a tenth of either; parsing takes some twenty times the text.
_LARGEST_HEADER = 16 * 2**20
_MOST_VALUES = 500_000


class Manifest(BaseModel):
    """What a checkpoint's metadata says.

    `sha256` is over the tensors, in the order of their names; `recipe` is what training did to the weights afterwards;
    `example`, what forward takes where that is not one batch of `model.input_size`.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    format: int = FORMAT
    model: ModelSpec
    plan: Plan
    fingerprint: Fingerprint
    dtype: Literal["float16", "bfloat16", "float32", "float64"] = "float32"
    sha256: str
    versions: dict[str, str] = Field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    example: KeptExample | None = None

    @property
    def inputs(self) -> Example | None:
        """The example, its noise always the same. Raises InputError where its bytes are no tensor."""
        return self.example.make(seed=0) if self.example else None

    @property
    def user_files(self) -> list[str]:
        """The files of the user's own that make the model and its operators, as path/to/file.py:name."""
        named = [self.model.name] if self.model.source == "file" else []
        return [*named, *(name for name in self.plan.operators if split_reference(name) is not None)]


@dataclass(frozen=True)
class Saved:
    """What a file holds. `digest` is over all of its metadata, the tensors' digest included; `intact` says whether it
    is the one that was saved with it."""

    manifest: Manifest
    tensors: dict[str, Tensor]
    digest: str
    intact: bool


def is_checkpoint(path: Path) -> bool:
    """Whether there is a file here that says it is a poolswap checkpoint."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except SafetensorError:
        return False


def read_manifest(path: Path | str) -> Manifest:
    """What a checkpoint says of itself, without its weights. Raises InputError as `read` does."""
    return read(Path(path), weights=False).manifest


def read(path: Path, *, weights: bool = True) -> Saved:
    """The whole file. Nothing in it is executed, and no memory is taken beyond what its tensors need.

    Raises InputError for a file that is no sound checkpoint of this format.
    """
    if not path.is_file():
        raise no_file(path, "make one with poolswap convert MODEL")
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise InputError(
                    f"{path} is not a poolswap checkpoint",
                    "give it to convert: poolswap convert MODEL --checkpoint FILE",
                )
            manifest, digest = _manifest(metadata[_KEY], path), _metadata_digest(metadata)
            names = file.keys() if weights else ()
            tensors = {name: file.get_tensor(name) for name in names}
            return Saved(manifest, tensors, digest, intact=metadata.get(_DIGEST) == digest)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}", "copy or make it again") from None


def _check_header(path: Path) -> None:
    """Refuse what is no safetensors file by its first bytes, before anything parses it."""
    with path.open("rb") as file:
        start = file.read(9)
    length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    if start[8:9] != b"{" or not 2 <= length <= min(_LARGEST_HEADER, path.stat().st_size - 8):
        raise InputError(f"{path} is not a safetensors file, or is cut off", "copy or make it again")


def _manifest(text: str, path: Path) -> Manifest:
    if _too_long(text):
        raise InputError(f"the metadata of {path} is too large to be a checkpoint's", "copy or make it again")
    try:
        document = json.loads(text)
        version = document.get("format", FORMAT) if isinstance(document, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise InputError(f"{path} has format {version}, newer than this poolswap reads", "install a newer poolswap")
        manifest = Manifest.model_validate(document)
    except (ValidationError, ValueError, RecursionError) as error:
        where = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        field = ".".join(map(str, where["loc"])) or "metadata"
        raise InputError(
            f"the metadata of {path} is damaged: {field}: {in_words(str(where['msg']))}", "make it again"
        ) from None
    size = manifest.model.input_size
    if len(size) not in (2, 3, 4) or min(size) < 1 or math.prod(size) * manifest.fingerprint.batch > LARGEST_INPUT:
        raise InputError(f"the metadata of {path} has an absurd input size {size}", "make it again")
    return manifest


def write(path: Path, tensors: Mapping[str, Tensor], manifest: Manifest, *, force: bool = False) -> None:
    """Write the file. Raises InputError where it exists (unless `force`) or cannot be written.

    Raises CheckError for a manifest with NaN or infinity in it: JSON has neither, and no healthy model makes them.
    """
    for field, value in _numbers(manifest.model_dump()):
        if not math.isfinite(value):
            raise CheckError(f"{field} is {value}: a checkpoint keeps finite numbers only", "save a healthy model")
    text = manifest.model_dump_json(exclude_defaults=True)
    if _too_long(text):
        raise InputError("the plan, recipe and example are too large for a checkpoint", "give a smaller example=")
    metadata = metadata_of(text)
    with atomic_path(path, force=force) as temporary:
        save_tensors(tensors, temporary, metadata)


def metadata_of(manifest: str) -> dict[str, str]:
    """What a safetensors file says of itself: the manifest in JSON, and the digest that shows a change."""
    metadata = {"format": "pt", _KEY: manifest}
    return {**metadata, _DIGEST: _metadata_digest(metadata)}


def _too_long(text: str) -> bool:
    """Whether JSON is longer than a checkpoint's, in bytes or in values: known without parsing it."""
    return len(text) > _LARGEST_HEADER // 2 or sum(map(text.count, ",[{")) > _MOST_VALUES


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _metadata_digest(metadata: Mapping[str, str]) -> str:
    covered = {key: value for key, value in metadata.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def _numbers(document: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """(where, value) of every float in nested dicts and sequences."""
    if isinstance(document, float):
        yield path.removeprefix("."), document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from _numbers(value, f"{path}.{key}")
    elif isinstance(document, list | tuple):
        for number, value in enumerate(document):
            yield from _numbers(value, f"{path}.{number}")
