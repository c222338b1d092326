"""Writing files so that nothing is overwritten by accident and nothing is left half written.

Whatever is written first lies in a folder of its own beside its place, `.poolswap-partial-...`, which its writer holds
locked. A writer that is killed leaves it behind, unlocked; the next write into that place removes it.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from poolswap.errors import InputError, first_line

try:
    import fcntl
except ImportError:  # Windows: what a killed writer leaves stays there
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".poolswap-partial-"
_TRIES = 5
_SYSTEM_SAYS = re.compile(r"I/O error: (.+) \(os error \d+\)")  # in an error of safetensors


def check_writable(path: Path, *, force: bool) -> None:
    """Raise InputError where the file exists and must not be replaced, or its folder cannot be written to.

    A device, a pipe or a socket is never replaced: it is no file. A link is replaced itself, and not what it leads to.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder", "name a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, which no file may replace", "name a file")
    if os.path.lexists(path) and not force:
        raise exists_already(path)
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", f"mkdir -p {shlex.quote(str(path.parent))}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the folder {path.parent} cannot be written to", "name a file elsewhere")


def check_folder_place(path: Path) -> None:
    """Raise InputError where no folder can be made and written to: its nearest parent that exists does not let it."""
    held = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if not held.is_dir() or not os.access(held, os.W_OK):
        raise InputError(f"{held} is no folder that can be written to", "name another folder")


@contextmanager
def atomic_path(path: Path | str, *, force: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well, and nothing otherwise.

    Raises InputError where `path` exists, even if only since the block began (unless `force`), or where the disk does
    not take the file.
    """
    path = Path(path)
    check_writable(path, force=force)
    with partial_folder(path) as folder:
        yield folder / path.name
        put(folder / path.name, path, force=force)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, gone with what is in it when the block ends.

    What the system or a writer says of the disk in the block becomes an InputError about `path`.
    """
    try:
        sweep(path.parent)
        with _locked_folder(path.parent) as folder:
            yield folder
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be written: {_reason(error)}", "free some space, or name a file elsewhere"
        ) from error


def _reason(error: OSError | SafetensorError) -> str:
    """What the system says, without the words that the writer puts around it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = _SYSTEM_SAYS.search(str(error))
    return said[1] if said else first_line(error)


def put(made: Path, path: Path, *, force: bool) -> None:
    """Give a file, or a folder, that was made beside `path` this name. A folder's files replace those of their names.

    Raises InputError where there is something of that name now (unless `force`): another writer may have been first.
    """
    if made.is_dir() and path.is_dir() and force:
        for file in sorted(made.iterdir(), key=lambda file: file.suffix == ".safetensors"):  # what loads comes last
            file.replace(path / file.name)
    elif force:
        made.replace(path)
    else:
        _put_new(made, path)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in the folder: partial folders that no process holds."""
    for left in folder.glob(f"{PARTIAL}*"):
        with suppress(OSError), hold(left) as held:
            if held and not left.is_symlink():
                shutil.rmtree(left)


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Hold a folder for the length of a with block; False where another process holds it.

    The system takes the hold back when the process ends, however it ends. Raises OSError where there is no such folder,
    or it cannot be held at all.
    """
    if fcntl is None:
        raise OSError("this system has no flock")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        held = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        yield held and os.path.samestat(os.fstat(descriptor), folder.stat())  # unless a sweep removed it just then
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str, *, force: bool = False) -> None:
    """Write a text file at once or not at all."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def csv_of(rows: Iterable[Mapping[str, object]]) -> str:
    """The rows as CSV, under the first one's names; nothing for no rows."""
    lines = list(rows)
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return text.getvalue()


def cache_folder() -> Path:
    """Where what can be made again is kept: $POOLSWAP_CACHE, or poolswap in $XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("POOLSWAP_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolswap"


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file with the permissions of any new file: its own writer makes one for its owner alone."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path, metadata=metadata)
    path.chmod(mode)


def torch_save(value: Any, path: Path) -> None:
    """torch.save that raises OSError where the disk is full; torch's own writer fails later, by an assertion."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


@contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    with ExitStack() as held:
        for _ in range(_TRIES):
            folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=parent))  # for its owner alone
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                if held.enter_context(hold(folder)):
                    break
            except FileNotFoundError:  # a sweep was faster than the lock
                continue
            except OSError:  # no locks here, and so no sweeps
                break
        yield folder


def _put_new(made: Path, path: Path) -> None:
    try:
        if made.is_dir():
            made.rename(path)  # refuses a folder that is not empty, and a file
        else:
            os.link(made, path)  # a rename would replace what another writer has just made
    except OSError as error:
        if os.path.lexists(path):
            raise exists_already(path) from error
        made.rename(path)  # a file system without links


def exists_already(path: Path) -> InputError:
    """The error where a place is taken."""
    return InputError(f"{path} exists already", "replace it with force=True, or name another file")
