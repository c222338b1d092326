"""A user's own Python: path/to/file.py:name, run only because the user named it."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from poolswap.errors import InputError, first_line, no_file

_REFERENCE = re.compile(r"(?P<path>.+\.py):(?P<name>\w+)")


def split_reference(reference: str) -> tuple[Path, str] | None:
    """(path, name) of path/to/file.py:name, or None for anything else."""
    match = _REFERENCE.fullmatch(reference)
    return (Path(match["path"]), match["name"]) if match else None


def load_object(reference: str) -> Any:
    """The object that path/to/file.py:name names, after running the file. Raises InputError with the file's line."""
    split = split_reference(reference)
    if split is None:
        raise InputError(f"{reference!r} is not path/to/file.py:name")
    path, name = split
    if not path.is_file():
        raise no_file(path, "give the path of a Python file, then a colon and a name in it")
    unique = f"poolswap_user_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[unique] = module
    with _running(path):
        spec.loader.exec_module(module)
    if not hasattr(module, name):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path} has no {name!r}", f"it has {', '.join(public) or 'nothing callable'}")
    return getattr(module, name)


def make_from_file(reference: str, arguments: Mapping[str, Any]) -> tuple[nn.Module, str | None]:
    """(model, note): what the factory (a function or an nn.Module class) of the file makes of the arguments.

    DataParallel, DistributedDataParallel and torch.compile wrappers are taken off, and the note says so. Raises
    InputError for a factory that fails, that takes no such argument, or that makes no nn.Module.
    """
    factory = load_object(reference)
    split = split_reference(reference)
    assert split is not None
    path, name = split
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InputError(f"{reference} is not a function or class", f"write def {name}(): return your_model")
    unknown = [key for key in arguments if not _takes(factory, key)]
    if unknown:
        takes = ", ".join(signature(factory).parameters) or "none"
        raise InputError(f"{reference} takes no argument {unknown[0]!r}", f"it takes {takes}")
    with _running(path):
        model = factory(**arguments)
    return _unwrapped(model, reference)


def takes_argument(reference: str, name: str) -> bool:
    """Whether the factory that path/to/file.py:name names has an argument of this name; runs the file."""
    factory = load_object(reference)
    return callable(factory) and _takes(factory, name)


def _takes(factory: Callable[..., Any], name: str) -> bool:
    accepted = signature(factory).parameters
    return name in accepted or any(p.kind is Parameter.VAR_KEYWORD for p in accepted.values())


def _unwrapped(made: Any, reference: str) -> tuple[nn.Module, str | None]:
    model, wrappers = made, []
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            inner = model.module
        elif isinstance(model, nn.Module) and isinstance(getattr(model, "_orig_mod", None), nn.Module):
            inner = model._orig_mod  # torch.compile
        else:
            break
        wrappers.append(type(model).__name__)
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"{reference} gives a TorchScript module, which cannot be changed", "return the eager nn.Module"
        )
    if not isinstance(model, nn.Module):
        raise InputError(f"{reference} gives a {type(model).__name__}, not an nn.Module", "return the model itself")
    try:
        model.eval()
    except NotImplementedError as error:  # what torch.export gives has one mode
        raise InputError(
            f"{reference} gives a model that cannot be changed: {first_line(error)}", "return the eager nn.Module"
        ) from error
    return model, f"taken out of its {' and '.join(wrappers)}" if wrappers else None


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """Run the user's code: its neighbours can be imported, and what it raises becomes an InputError with its line."""
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{_where(path, error)}: {type(error).__name__}: {first_line(error)}",
            "correct the file; POOLSWAP_DEBUG=1 shows the traceback",
        ) from error
    finally:
        with suppress(ValueError):  # unless the code did
            sys.path.remove(beside)


def _where(path: Path, error: BaseException) -> str:
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    lines = [line for file, line in places if Path(file).resolve() == path.resolve()]
    return f"{path}:{lines[-1]}" if lines else str(path)
