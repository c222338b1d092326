"""State dicts from files: read without running code, loaded strictly."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from poolswap.errors import InputError, no_file

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model")
# Training scripts, timm's and torchvision's among them, save their parsed arguments beside the weights.
_INERT: list[Any] = [argparse.Namespace]
_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
_SHOWN = 3


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt, .pth, .bin or .ckpt file, by name.

    Checkpoints that wrap their state dict are unwrapped, the EMA's first; the prefixes of DataParallel and
    torch.compile are stripped. Pickles are read with weights_only=True: no code runs. Raises InputError.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "give the path of a .safetensors, .pt, .pth or .bin file")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path.name} is not a weights file by its name", f"known are {', '.join(SUFFIXES)}")
    document = _read(path)
    for _ in range(2):
        wrapped = next((document[key] for key in _WRAPPERS if isinstance(document.get(key), Mapping)), None)
        if wrapped is None:
            break
        document = wrapped
    tensors = {str(key): value for key, value in document.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(document):
        raise InputError(
            f"{path} holds no state dict, but {_few([str(key) for key in document]) or 'nothing'}",
            "save it with torch.save(model.state_dict(), FILE)",
        )
    return _unprefixed(tensors)


def load_into(model: nn.Module, state_dict: Mapping[str, Tensor], origin: str) -> None:
    """Load every tensor, strictly. Raises InputError that lists the first few of each kind of mismatch."""
    own = model.state_dict()
    differing = [
        f"{key} {_shape(state_dict[key])} for {_shape(own[key])}"
        for key in own
        if key in state_dict and _shape(own[key]) != _shape(state_dict[key])
    ]
    if differing:
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own]
    else:  # torch fills in what older versions did not save, such as num_batches_tracked
        try:
            missing, unexpected = model.load_state_dict(dict(state_dict), strict=False)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise InputError(f"{origin} does not fit the model: {reason}", "save model.state_dict() again") from error
    kinds = {"missing": missing, "unexpected": unexpected, "shape": differing}
    problems = [f"{kind}: {_few(keys)}" for kind, keys in kinds.items() if keys]
    if problems:
        raise InputError(
            f"{origin} does not fit the model ({'; '.join(problems)})",
            "give the model it was saved from: check the name, num_classes=, in_chans= and model_args=",
        )


def sha256_of(path: Path | str) -> str:
    """Hex digest of the file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> Mapping[Any, Any]:
    try:
        if path.suffix == ".safetensors":
            document: Any = load_file(path)
        else:
            _check_inflated(path)
            with torch.serialization.safe_globals(_INERT), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of file formats that then fail
                document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        if isinstance(error, pickle.UnpicklingError) and (refused := _REFUSED.search(str(error))):
            raise InputError(
                f"{path} holds {refused[1]}, and loading that could run code",
                "save only the state dict: torch.save(model.state_dict(), FILE)",
            ) from None
        told = isinstance(error, (SafetensorError, RuntimeError, OSError))
        reason = str(error).partition("\n")[0].partition(". ")[0] if told else "it is no file of torch's"
        raise InputError(
            f"{path} cannot be read: {reason}", "the file may be cut off or of another format: copy or save it again"
        ) from None
    if not isinstance(document, Mapping):
        raise InputError(f"{path} holds a {type(document).__name__}, not a state dict", "save model.state_dict()")
    return document


def _check_inflated(path: Path) -> None:
    """torch stores tensors as they are: what grows in memory was compressed to be small on the way here."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            held = sum(entry.file_size for entry in archive.infolist())
        if held > 2 * path.stat().st_size + 2**20:
            raise OSError(f"it is compressed, {path.stat().st_size:,} bytes for {held:,}")


def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what DataParallel puts before every name, AveragedModel beside them, and torch.compile among them."""
    tensors = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    wrapped = {key: value for key, value in tensors.items() if key != "n_averaged"}
    while wrapped and all(key.startswith("module.") for key in wrapped):
        wrapped = tensors = {key.removeprefix("module."): value for key, value in wrapped.items()}
    return tensors


def _shape(tensor: Tensor) -> str:
    return "complex " * tensor.is_complex() + ("x".join(map(str, tensor.shape)) or "scalar")


def _few(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
