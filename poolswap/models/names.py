"""What a model reference names: a model of timm's, of torchvision's, or of the user's own file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import timm
import torchvision
from timm.models import get_deprecated_models

from poolswap.errors import InputError, closest, no_file
from poolswap.models.known import known_models, known_versions
from poolswap.models.torchvision import is_torchvision
from poolswap.models.userfile import split_reference
from poolswap.models.weights import SUFFIXES

Source = Literal["timm", "torchvision", "file"]


def resolve(reference: str) -> tuple[Source, str, str | None]:
    """(source, name, note) of NAME, timm:NAME, torchvision:NAME or path/to/net.py:factory.

    A bare name is timm's where both libraries have it, and the note says so; a name that timm has given up becomes its
    successor's. Raises InputError with the closest names.
    """
    if split_reference(reference) is not None:
        return "file", reference, None
    prefix, colon, name = reference.partition(":")
    if not colon:
        if timm.is_model(reference):
            both = f"timm's {reference}; torchvision has one too: torchvision:{reference}"
            name, note = _timm_name(reference)
            return "timm", name, note or (both if is_torchvision(reference) else None)
        if is_torchvision(reference):
            return "torchvision", reference, None
        raise _unknown(reference, [*timm.list_models(), *torchvision.models.list_models()])
    if prefix == "timm":
        if not timm.is_model(name):
            raise _unknown(reference, [f"timm:{known}" for known in timm.list_models()])
        return "timm", *_timm_name(name)
    if prefix == "torchvision":
        if not is_torchvision(name):
            raise _unknown(reference, [f"torchvision:{known}" for known in torchvision.models.list_models()])
        return "torchvision", name, None
    raise InputError(
        f"unknown model source {prefix!r}",
        "write NAME, timm:NAME, torchvision:NAME, hf-hub:ORG/NAME, local-dir:PATH or net.py:factory",
    )


def _timm_name(name: str) -> tuple[str, str | None]:
    """(name, note), with a name that timm has given up replaced by its successor's. Raises InputError for a bad tag."""
    given_up = get_deprecated_models()
    if name in given_up:
        current = given_up[name]
        if current is None:
            raise InputError(f"timm has removed {name}")
        return current, f"timm calls {name} {current} now"
    arch, _, tag = name.partition(".")
    known = timm.list_models(f"{arch}.*", include_tags=True) if tag else [name]
    if name not in known:
        raise _unknown(name, known or [arch])
    return name, None


def _unknown(reference: str, known: Iterable[str]) -> InputError:
    suffix = Path(reference).suffix
    if suffix == ".py":
        return InputError(f"{reference} does not say which model of the file", f"{reference}:FACTORY")
    if suffix in SUFFIXES:
        return InputError(
            f"{reference} names a file of weights, not a model", f"name the model, and give weights={reference!r}"
        )
    if "/" in reference and ":" not in reference:  # no model's name has one
        return _no_model_file(Path(reference))
    if reference.removeprefix("timm:") in {model.name for model in known_models()}:
        newer = f"the installed timm and torchvision do not have {reference} yet: {known_versions()} do"
        return InputError(newer, "pip install -U timm torchvision")
    close = closest(reference.lower(), dict.fromkeys(known), cutoff=0.0)
    return InputError(f"unknown model {reference!r}", f"the closest names are {', '.join(close)}")


def _no_model_file(path: Path) -> InputError:
    if path.exists():
        return InputError(f"{path} is no checkpoint of poolswap", "give a .safetensors file, or a model's name")
    return no_file(path, "give a .safetensors file, or a model's name")
