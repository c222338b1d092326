"""torchvision's builders: the weights they know, the input size they expect, and a build that fetches nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torchvision
from torch import nn
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models._api import WeightsEnum

from poolswap.errors import InputError

_IMAGE = (224, 224)
_DETECTION = (320, 320)
_CLIP_LENGTH = 16


def is_torchvision(name: str) -> bool:
    """Whether torchvision has a builder of exactly this name."""
    return name in torchvision.models.list_models()


def default_weights(name: str) -> str:
    """The entry that torchvision calls DEFAULT: "ResNet50_Weights.IMAGENET1K_V2". Raises InputError without one."""
    if name.startswith("quantized_"):
        stock = f"torchvision:{name.removeprefix('quantized_')}"
        raise InputError(
            f"the pretrained weights of torchvision:{name} are int8", f"use {stock} with weights='pretrained'"
        )
    entries = get_model_weights(name)
    if not len(entries):
        raise InputError(f"torchvision has no pretrained weights for {name}", "leave out weights='pretrained'")
    return str(entries.DEFAULT)


def build_torchvision(
    name: str, arguments: Mapping[str, Any], *, weights: str | None, fetch: bool = False, initialise: bool = False
) -> nn.Module:
    """The builder's model. `weights` names an entry, whose architecture may differ from that of random weights.

    Only `fetch` loads the entry's weights. `initialise` runs the slow initialisation of the Inception family too.
    """
    arguments = dict(arguments)
    if (channels := arguments.pop("in_chans", 3)) != 3:
        raise InputError(f"torchvision:{name} takes 3 channels, not {channels}", "use timm's model of this kind")
    if arguments.get("quantize"):
        raise InputError("an int8 model cannot be changed", "leave out quantize, and quantise the result")
    builder = get_model_builder(name)
    defaults: dict[str, Any] = {}
    if "weights_backbone" in signature(builder).parameters:
        defaults["weights_backbone"] = None
    if weights is None and name.endswith(("googlenet", "inception_v3")):
        defaults["init_weights"] = initialise  # unset, it warns
    entry = None if weights is None else _entry(name, weights)
    given = entry if entry is None or fetch else _AsDrawn(entry)
    model: nn.Module = builder(weights=given, progress=False, **defaults, **arguments)
    return model


def default_size(model: nn.Module, name: str, weights: str | None) -> tuple[int, ...]:
    """(C, *spatial) of the entry's own transforms; a clip for video models, a small image for detection."""
    module = get_model_builder(name).__module__
    if ".detection." in module:
        return 3, *_DETECTION
    if isinstance(side := getattr(model, "image_size", None), int):  # ViT, whose random weights have their own size
        return 3, side, side
    entries = get_model_weights(name)
    entry = _entry(name, weights) if weights else entries.DEFAULT if len(entries) else None
    crop = tuple(getattr(entry.transforms(), "crop_size", _IMAGE)) if entry else _IMAGE
    crop = crop * 2 if len(crop) == 1 else crop
    return (3, _CLIP_LENGTH, *crop) if ".video." in module else (3, *crop)


def size_arguments(name: str, spatial: Sequence[int]) -> dict[str, Any]:
    """What tells the builder of a fixed-size model its input size. Raises InputError for a size it cannot take."""
    if name.startswith("vit_"):
        if len(set(spatial)) != 1:
            raise InputError(
                f"torchvision's {name} takes square images only", f"input_size=(3, {spatial[0]}, {spatial[0]})"
            )
        return {"image_size": spatial[0]}
    if name.startswith("maxvit_") and tuple(spatial) != _IMAGE:
        return {"input_size": list(spatial)}
    return {}


def _entry(name: str, weights: str) -> WeightsEnum:
    entries = get_model_weights(name)
    kind, _, tag = weights.partition(".")
    if kind != entries.__name__ or tag not in entries.__members__:
        raise InputError(f"torchvision:{name} has no weights {weights!r}", "pip install -U torchvision")
    return entries[tag]


class _AsDrawn:
    """An entry of weights whose tensors are those that the model was drawn with.

    Builders set a model up as its entry says (frozen norms, classes, sizes, auxiliary heads), and then load the entry's
    state dict. This one passes for the entry everywhere, but for that state dict: it is the new model's own.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, entry: WeightsEnum) -> None:
        self._entry = entry

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._entry)

    def __eq__(self, other: object) -> bool:
        return self._entry is other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def get_state_dict(self, *_: Any, **__: Any) -> Mapping[str, Any]:
        """What the builder, which calls this as `model.load_state_dict(weights.get_state_dict())`, has made so far."""
        model: nn.Module = sys._getframe(1).f_locals["model"]
        return model.state_dict()
