"""What is in a data set, in one digest: a changed, missing or renamed image makes another one."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from poolswap.adapt.data import is_iterable

_WHOLE = 2**30  # bytes of files up to which they are read; of more, names and sizes must do


def content_digest(dataset: Any) -> str:
    """sha256 of the images' order, names, sizes and targets, and of their bytes where these are at most 1 GiB.

    A data set with a `digest` says it itself; of one of Hugging Face's it is their fingerprint. Of what has neither
    files nor arrays only the length is known, and of a stream not even that.
    """
    own = getattr(dataset, "digest", None)
    if own is not None:
        return str(own)
    if isinstance(dataset, Subset):
        return _of([content_digest(dataset.dataset), *map(str, dataset.indices)])
    samples = _samples(dataset)
    if samples is not None:
        files = [Path(path) for path, _ in samples]
        root = getattr(getattr(dataset, "reader", dataset), "root", "")
        sizes = [path.stat().st_size if path.exists() else -1 for path in files]
        names = [path.relative_to(root) if path.is_relative_to(root) else path for path in files]
        lines = [f"{n}\0{size}\0{target}" for n, size, (_, target) in zip(names, sizes, samples, strict=True)]
        if sum(sizes) <= _WHOLE:
            lines += [_bytes_of(path) for path in files]
        return _of(lines)
    table = getattr(getattr(dataset, "reader", None), "dataset", dataset)
    arrays = [getattr(table, name, None) for name in ("tensors", "data", "targets", "labels")]
    length = "a stream" if is_iterable(dataset) else str(len(dataset))
    return _of([length, str(getattr(table, "_fingerprint", "")), *(_array(value) for value in arrays)])


def _samples(dataset: Any) -> list[tuple[str, Any]] | None:
    """(file, target) of each image, as timm's folders and torchvision's data sets keep them."""
    found = getattr(getattr(dataset, "reader", dataset), "samples", None)
    whole = isinstance(found, list) and all(isinstance(one, tuple) and isinstance(one[0], str) for one in found)
    return found if whole else None


def _bytes_of(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError as error:  # reading it is the loader's affair, and so is the error
        return str(error.errno)


def _array(value: Any) -> str:
    if isinstance(value, tuple):
        return _of(map(_array, value))
    array = getattr(value, "numpy", lambda: value)()
    if hasattr(array, "tobytes"):
        return f"{array.shape} {sha256(array.tobytes()).hexdigest()}"
    return repr(value) if isinstance(value, list) else ""


def _of(parts: Iterable[str]) -> str:
    found = sha256()
    for part in parts:
        found.update(part.encode("utf-8", "surrogateescape") + b"\n")
    return found.hexdigest()
