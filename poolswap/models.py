"""Name -> (model, ModelSpec): timm, torchvision, or the user's own file.py:factory."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import timm
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field
from timm.models import get_pretrained_cfg
from torch import nn
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models._api import WeightsEnum

from poolswap.errors import InputError
from poolswap.userfile import make_from_file, split_reference
from poolswap.weights import load_into, read_state_dict, sha256_of

Source = Literal["timm", "torchvision", "file"]

_IMAGE = (3, 224, 224)
_CLIP_LENGTH = 16
_DETECTION = (3, 320, 320)


class Weights(BaseModel):
    """Where the weights come from: a seed, the library's pretrained weights, or a file."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["random", "pretrained", "file"]
    origin: str | None = None
    sha256: str | None = None
    seed: int | None = None

    def __str__(self) -> str:
        """One phrase for a summary."""
        return f"random (seed {self.seed})" if self.kind == "random" else f"{self.kind} ({self.origin})"


class ModelSpec(BaseModel):
    """Everything needed to build the model again, but for its weights. `input_size` is (C, *spatial)."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    source: Source
    name: str
    input_size: tuple[int, ...]
    num_classes: int | None = None
    in_chans: int | None = None
    model_args: dict[str, Any] = Field(default_factory=dict)
    weights: Weights
    note: str | None = None

    @property
    def reference(self) -> str:
        """The name that `resolve` takes: "timm:resnet50", "torchvision:resnet50", "net.py:factory"."""
        return self.name if self.source == "file" else f"{self.source}:{self.name}"


def resolve(reference: str) -> tuple[Source, str, str | None]:
    """(source, name, note) of NAME, timm:NAME, torchvision:NAME or path/to/net.py:factory.

    A bare name is timm's where both libraries have it, and the note says so. Raises InputError with the closest names.
    """
    if split_reference(reference) is not None:
        return "file", reference, None
    prefix, colon, name = reference.partition(":")
    if not colon:
        in_timm, in_torchvision = timm.is_model(reference), _in_torchvision(reference)
        if in_timm:
            both = f"timm's {reference}; torchvision has one too: torchvision:{reference}"
            return "timm", reference, both if in_torchvision else None
        if in_torchvision:
            return "torchvision", reference, None
        raise _unknown(reference, [*timm.list_models(), *torchvision.models.list_models()])
    if prefix == "timm":
        if not timm.is_model(name):
            raise _unknown(reference, [f"timm:{known}" for known in timm.list_models()])
        return "timm", name, None
    if prefix == "torchvision":
        if not _in_torchvision(name):
            raise _unknown(reference, [f"torchvision:{known}" for known in torchvision.models.list_models()])
        return "torchvision", name, None
    raise InputError(f"unknown model source {prefix!r}", "write NAME, timm:NAME, torchvision:NAME or net.py:factory")


def create_model(
    reference: str,
    *,
    weights: Literal["random", "pretrained"] | Path | str = "random",
    num_classes: int | None = None,
    in_chans: int | None = None,
    input_size: Sequence[int] | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> tuple[nn.Module, ModelSpec]:
    """(model in eval mode, its spec). `weights` is "random" (from `seed`), "pretrained", or the path of a state dict.

    torch's generator is left as it was. The network is touched only for "pretrained". Raises InputError for a name,
    argument or file that does not fit, and for pretrained weights that cannot be had.
    """
    source, name, note = resolve(reference)
    spec = ModelSpec(
        source=source,
        name=name,
        input_size=tuple(input_size) if input_size else _IMAGE,
        num_classes=num_classes,
        in_chans=in_chans,
        model_args=dict(model_args or {}),
        weights=Weights(kind="random", seed=seed),
        note=note,
    )
    if source == "timm" and input_size is not None and _is_fixed(name) and "img_size" not in spec.model_args:
        spec = spec.model_copy(update={"model_args": {**spec.model_args, "img_size": list(input_size[1:])}})
    if weights == "pretrained":
        model, origin = _pretrained(spec)
        spec = spec.model_copy(update={"weights": Weights(kind="pretrained", origin=origin)})
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(spec, initialise=weights == "random")
        if weights != "random":
            path = Path(weights)
            load_into(model, read_state_dict(path), str(path))
            found = Weights(kind="file", origin=path.name, sha256=sha256_of(path))
            spec = spec.model_copy(update={"weights": found})
    if input_size is None:
        spec = spec.model_copy(update={"input_size": _default_input_size(model, spec)})
    return (model.to(device) if device is not None else model).eval(), spec


def build(spec: ModelSpec, device: torch.device | str | None = None, *, initialise: bool = False) -> nn.Module:
    """The architecture of `spec`, without its weights; on the meta device it costs no memory.

    `initialise` also runs slow initialisations of weights that a caller will not overwrite. Raises InputError where
    the architecture does not take the arguments.
    """
    given = {"num_classes": spec.num_classes, "in_chans": spec.in_chans}
    arguments = {key: value for key, value in given.items() if value is not None} | spec.model_args
    with torch.device(device or "cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if spec.source == "file":
            return make_from_file(spec.name, arguments)
        try:
            if spec.source == "timm":
                made: nn.Module = timm.create_model(spec.name, pretrained=False, **arguments)
                return made
            if spec.weights.kind == "pretrained":
                with _loading_nothing():
                    return _torchvision(spec.name, arguments, weights="DEFAULT")
            return _torchvision(spec.name, arguments, weights=None, initialise=initialise)
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise InputError(
                f"{spec.reference} cannot be built with {arguments}: {_first_line(error)}", "check --model-arg"
            ) from error


def parse_model_args(items: Sequence[str]) -> dict[str, Any]:
    """["key=value", ...] -> {key: value}; values are JSON, anything else is a string. Raises InputError."""
    parsed = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(f"--model-arg {item!r} is not key=value", "write for example --model-arg drop_rate=0.1")
        try:
            parsed[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key.strip()] = value
    return parsed


def parse_input_size(text: str) -> tuple[int, ...]:
    """ "3,224,224" or "3,16,112,112" -> a tuple of three or four positive ints. Raises InputError."""
    parts = text.split(",")
    if len(parts) not in (3, 4) or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input-size {text!r} is not C,H,W or C,T,H,W", "write for example --input-size 3,224,224")
    return tuple(int(part) for part in parts)


def _pretrained(spec: ModelSpec) -> tuple[nn.Module, str]:
    if spec.source == "file":
        raise InputError(f"{spec.name} has no pretrained weights", "load them with --checkpoint FILE")
    given = {"num_classes": spec.num_classes, "in_chans": spec.in_chans}
    arguments = {key: value for key, value in given.items() if value is not None} | spec.model_args
    if spec.source == "timm" and not timm.is_model_pretrained(spec.name):
        raise InputError(f"timm has no pretrained weights for {spec.name}", "leave out --pretrained for random weights")
    if spec.source == "torchvision" and not len(get_model_weights(spec.name)):
        raise InputError(
            f"torchvision has no pretrained weights for {spec.name}", "leave out --pretrained for random weights"
        )
    try:
        if spec.source == "timm":
            model = timm.create_model(spec.name, pretrained=True, **arguments)
            cfg = model.pretrained_cfg
            return model, cfg.get("hf_hub_id") or cfg.get("url") or spec.name
        return _torchvision(spec.name, arguments, weights="DEFAULT"), str(get_model_weights(spec.name).DEFAULT)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{spec.reference} with pretrained weights: {_first_line(error)}",
            "pretrained weights fit only the architecture they were made for: leave out the argument",
        ) from error
    except Exception as error:
        raise InputError(
            f"the pretrained weights of {spec.reference} cannot be had: {_first_line(error)}",
            "go online once to fill the cache, or give a file with --checkpoint FILE",
        ) from error


def _torchvision(
    name: str, arguments: Mapping[str, Any], *, weights: str | None, initialise: bool = False
) -> nn.Module:
    arguments = dict(arguments)
    in_chans = arguments.pop("in_chans", 3)
    if in_chans != 3:
        raise InputError(f"torchvision's {name} takes 3 channels, not {in_chans}", "use timm's with --in-chans")
    builder = get_model_builder(name)
    parameters = signature(builder).parameters
    if "weights_backbone" in parameters:
        arguments.setdefault("weights_backbone", None)
    if weights is None and name in ("googlenet", "inception_v3"):
        arguments.setdefault("init_weights", initialise)  # their own, slow one; None would warn
    model: nn.Module = builder(weights=weights, progress=False, **arguments)
    return model


@contextmanager
def _loading_nothing() -> Iterator[None]:
    """torchvision's builders set a model up differently for pretrained weights; do that, and load none."""
    with (
        mock.patch.object(WeightsEnum, "get_state_dict", return_value={}),
        mock.patch.object(nn.Module, "load_state_dict", return_value=None),
    ):
        yield


def _default_input_size(model: nn.Module, spec: ModelSpec) -> tuple[int, ...]:
    """From timm's configuration or torchvision's transforms; a clip for video models."""
    if spec.source == "timm":
        cfg: Any = model.pretrained_cfg
        size = tuple(cfg.get("input_size") or _IMAGE)
        return (spec.in_chans or size[0], *size[1:])
    if spec.source == "file":
        size = tuple(getattr(model, "input_size", _IMAGE))
        return size if len(size) in (2, 3, 4) else (spec.in_chans or 3, *_IMAGE[1:])
    module = get_model_builder(spec.name).__module__
    if ".detection." in module:
        return _DETECTION
    entries = get_model_weights(spec.name)
    transforms = entries.DEFAULT.transforms() if len(entries) else None
    crop = list(getattr(transforms, "crop_size", None) or _IMAGE[1:])
    crop = crop * 2 if len(crop) == 1 else crop
    if ".video." in module:
        return 3, _CLIP_LENGTH, *crop
    return 3, *crop


def _is_fixed(name: str) -> bool:
    cfg = get_pretrained_cfg(name)
    return bool(cfg and cfg.fixed_input_size)


def _in_torchvision(name: str) -> bool:
    return name in torchvision.models.list_models()


def _unknown(reference: str, known: Sequence[str]) -> InputError:
    close = get_close_matches(reference, dict.fromkeys(known), n=3, cutoff=0.0)
    return InputError(f"unknown model {reference!r}", f"the closest names are {', '.join(close)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
