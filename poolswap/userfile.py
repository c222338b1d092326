"""A user's own Python: path/to/file.py:name, run only because the user named it."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Mapping
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from poolswap.errors import InputError

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
        raise InputError(f"there is no file {path}", "give the path of a Python file, then a colon and a name in it")
    unique = f"poolswap_user_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[unique] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failure(path, error) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    if not hasattr(module, name):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{path} has no {name!r}", f"it has {', '.join(public) or 'nothing callable'}")
    return getattr(module, name)


def make_from_file(reference: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The model that the factory (a function or an nn.Module class) of the file makes of the arguments.

    DataParallel, DistributedDataParallel and torch.compile wrappers are taken off. Raises InputError for a factory that
    fails, that takes no such argument, or that makes no nn.Module.
    """
    factory = load_object(reference)
    split = split_reference(reference)
    assert split is not None
    path, name = split
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InputError(f"{reference} is not a function or class", f"write def {name}(): return your_model")
    accepted = signature(factory).parameters
    if not any(p.kind is Parameter.VAR_KEYWORD for p in accepted.values()):
        unknown = [key for key in arguments if key not in accepted]
        if unknown:
            takes = ", ".join(accepted) or "none"
            raise InputError(f"{reference} takes no argument {unknown[0]!r}", f"it takes {takes}")
    try:
        model = factory(**arguments)
    except Exception as error:
        raise _failure(path, error) from error
    return _unwrapped(model, reference)


def _unwrapped(model: Any, reference: str) -> nn.Module:
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif isinstance(model, torch._dynamo.eval_frame.OptimizedModule):
            model = model._orig_mod
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"{reference} gives a TorchScript module, which cannot be changed", "return the eager nn.Module"
        )
    if not isinstance(model, nn.Module):
        raise InputError(f"{reference} gives a {type(model).__name__}, not an nn.Module", "return the model itself")
    return model


def _failure(path: Path, error: Exception) -> InputError:
    """Where in the user's file it failed, in one line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    message = (str(error).splitlines() or [""])[0]
    return InputError(
        f"{where}: {type(error).__name__}: {message}", "correct the file; POOLSWAP_DEBUG=1 shows the traceback"
    )
