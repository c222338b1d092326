"""Writing files so that nothing is overwritten by accident and nothing is left half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from poolswap.errors import InputError


def check_writable(path: Path, *, force: bool) -> None:
    """Raise InputError where the file exists and must not be replaced, or its folder cannot be written to."""
    if path.exists() and not force:
        raise InputError(f"{path} exists already", "replace it with force=True, or name another file")
    if path.is_dir():
        raise InputError(f"{path} is a folder", "name a file")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the folder {path.parent} cannot be written to", "name a file elsewhere")


@contextmanager
def atomic_path(path: Path | str, *, force: bool = False) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well, and removed otherwise.

    Raises InputError where `path` exists (unless `force`), or where the disk does not take the file.
    """
    path = Path(path)
    check_writable(path, force=force)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}", "free some space, or name a file elsewhere"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, *, force: bool = False) -> None:
    """Write a text file at once or not at all."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_state_dict(model: nn.Module, path: Path | str, *, force: bool = False) -> None:
    """Write model.state_dict() for torch.load(weights_only=True)."""
    with atomic_path(path, force=force) as temporary:
        torch.save(model.state_dict(), temporary)
