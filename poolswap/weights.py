"""State dicts from files: read without running code, loaded strictly."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from poolswap.errors import InputError

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt, .pth, .bin or .ckpt file, by name.

    Checkpoints that wrap their state dict are unwrapped, the EMA's first; the prefixes of DataParallel and
    torch.compile are stripped. Pickles are read with weights_only=True: no code runs. Raises InputError.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}", "give the path of a .safetensors, .pt, .pth or .bin file")
    if path.suffix not in _SUFFIXES:
        raise InputError(f"{path.name} is not a weights file by its name", f"known are {', '.join(_SUFFIXES)}")
    document = _read(path)
    for _ in range(2):
        wrapped = next((document[key] for key in _WRAPPERS if isinstance(document.get(key), Mapping)), None)
        if wrapped is None:
            break
        document = wrapped
    tensors = {str(key): value for key, value in document.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(document):
        raise InputError(f"{path} holds no state dict", "save it with torch.save(model.state_dict(), FILE)")
    return {_stripped(key): value for key, value in tensors.items()}


def load_into(model: nn.Module, state_dict: Mapping[str, Tensor], origin: str) -> None:
    """Load every tensor, strictly. Raises InputError that lists the first few of each kind of mismatch."""
    own = model.state_dict()
    missing = [key for key in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in own]
    differing = [
        f"{key} {_shape(state_dict[key])} for {_shape(own[key])}"
        for key in own
        if key in state_dict and own[key].shape != state_dict[key].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "shape": differing}
    problems = [f"{kind}: {_few(keys)}" for kind, keys in kinds.items() if keys]
    if problems:
        raise InputError(
            f"{origin} does not fit the model ({'; '.join(problems)})",
            "give the model it was saved from: check the name, --num-classes, --in-chans and --model-arg",
        )
    model.load_state_dict(dict(state_dict), strict=True)


def sha256_of(path: Path | str) -> str:
    """Hex digest of the file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds more than tensors, and loading it would run its code",
            "save only the state dict: torch.save(model.state_dict(), FILE)",
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read: {reason}", "the file may be cut off: copy or download it again"
        ) from None
    if not isinstance(document, Mapping):
        raise InputError(f"{path} holds a {type(document).__name__}, not a state dict", "save model.state_dict()")
    return document


def _stripped(key: str) -> str:
    while True:
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None)
        if prefix is None:
            return key
        key = key.removeprefix(prefix)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _few(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
