"""Name -> (model, ModelSpec): timm, torchvision, a package of timm's, or the user's own file.py:factory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field
from timm.models import get_pretrained_cfg
from torch import nn

from poolswap.budget import building
from poolswap.errors import InputError, first_line
from poolswap.models.names import Source, resolve
from poolswap.models.network import hub_or_cache, way_out, why_not
from poolswap.models.package import FOLDER, HUB, Package, folder_of, read_package
from poolswap.models.torchvision import (
    build_torchvision,
    default_size,
    default_weights,
    size_arguments,
)
from poolswap.models.userfile import make_from_file
from poolswap.models.weights import load_into, read_state_dict, sha256_of

_IMAGE = (3, 224, 224)

# Builders' arguments that would fetch or read weights, and what has an option of its own.
_RESERVED = {"weights", "weights_backbone", "checkpoint_path", "num_classes", "in_chans"}


class Weights(BaseModel):
    """Where the weights come from: a seed, the library's own, or a file; and what they were trained on since."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["random", "pretrained", "file"]
    origin: str | None = None
    sha256: str | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**64)  # what torch takes
    trained_on: str | None = None

    @property
    def untrained(self) -> bool:
        """Whether they are as they were drawn."""
        return self.kind == "random" and self.trained_on is None

    def __str__(self) -> str:
        """One phrase for a summary."""
        source = f"random (seed {self.seed})" if self.kind == "random" else f"{self.kind} ({self.origin})"
        return f"{source}, trained on {self.trained_on}" if self.trained_on else source


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

    def trained(self, data: str) -> ModelSpec:
        """The spec of the model after a training on data of this name."""
        return _with(self, weights=self.weights.model_copy(update={"trained_on": data}))


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
    package = read_package(reference)
    source, name, note = resolve(f"timm:{package.architecture}" if package else reference)
    spec = ModelSpec(
        source=source,
        name=name,
        input_size=tuple(input_size or _IMAGE),
        num_classes=num_classes or (package.num_classes if package else None),
        in_chans=in_chans or (package.in_chans if package else None),
        model_args={**(package.model_args if package else {}), **(model_args or {})},
        weights=Weights(kind="random", seed=seed),
    )
    if input_size is not None:
        spec = _fitted(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
        if weights == "pretrained":
            model, spec, remark = _pretrained(spec, package)
        else:
            model, remark = _make(spec, initialise=weights == "random")
    if weights not in ("random", "pretrained"):
        path = Path(weights)
        load_into(model, read_state_dict(path), str(path))
        spec = _with(spec, weights=Weights(kind="file", origin=path.name, sha256=sha256_of(path)))
    spec = _with(spec, note="; ".join(filter(None, [note, remark])) or None)
    if input_size is None:
        packaged = package.input_size if package and not in_chans else None
        spec = _with(spec, input_size=packaged or default_input_size(model, spec))
    return (model.to(device) if device is not None else model).eval(), spec


def name_of(reference: str) -> str:
    """The name of the model that a reference names, for a file's name; a package goes by its folder or repository.

    Touches neither the network nor a model. Raises InputError for an unknown name.
    """
    folder = folder_of(reference)
    if folder is not None or reference.startswith(HUB):
        return (folder.resolve() if folder else Path(reference)).name
    return resolve(reference)[1]


def build(spec: ModelSpec, device: torch.device | str | None = None, *, initialise: bool = False) -> nn.Module:
    """The architecture of `spec`, without its weights and without the network; on the meta device it costs no memory.

    `initialise` also runs slow initialisations of weights that a caller will not overwrite. Raises InputError where the
    architecture is unknown or does not take the arguments, RuntimeError where it cannot be made on the meta device.
    """
    return _make(spec, device, initialise=initialise)[0]


def _make(
    spec: ModelSpec, device: torch.device | str | None = None, *, initialise: bool = False, fetch: bool = False
) -> tuple[nn.Module, str | None]:
    """(model, note); only `fetch` asks the library for weights."""
    source, name, _ = resolve(spec.reference)  # a spec may come from a file: only names that are listed
    if source != spec.source:
        raise InputError(f"{spec.name!r} is not a {spec.source} model")
    given = {"num_classes": spec.num_classes, "in_chans": spec.in_chans}
    arguments = {**spec.model_args, **{key: value for key, value in given.items() if value is not None}}
    with building(), torch.device(device or "cpu") as on:
        if source == "file":
            return make_from_file(name, arguments)
        for key in spec.model_args:
            if key in _RESERVED or key.startswith("pretrained"):
                raise InputError(
                    f"{key} is not an argument of the architecture",
                    "weights come from weights='pretrained' or weights=FILE, shapes from num_classes= and in_chans=",
                )
        try:
            if source == "timm":
                packaged = (
                    spec.weights.origin if fetch and (spec.weights.origin or "").startswith((HUB, FOLDER)) else None
                )
                return timm.create_model(packaged or name, pretrained=fetch, **arguments), None
            entry = spec.weights.origin if spec.weights.kind == "pretrained" else None
            return build_torchvision(name, arguments, weights=entry, fetch=fetch, initialise=initialise), None
        except InputError:
            raise
        except Exception as error:
            unable = on.type == "meta" and isinstance(error, RuntimeError)
            if fetch or unable or not arguments:
                raise
            shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
            raise InputError(
                f"{spec.reference} cannot be built with {shown}: {first_line(error)}", "check these arguments"
            ) from error


def _pretrained(spec: ModelSpec, package: Package | None) -> tuple[nn.Module, ModelSpec, str | None]:
    """(model, spec, note). A classifier of another width is new, and drawn from the seed."""
    if spec.source == "file":
        raise InputError(f"{spec.name} has no pretrained weights", "load them with weights=FILE")
    seed, note = None, None
    if spec.source == "torchvision":
        origin = default_weights(spec.name)
    elif package is not None:
        origin = package.origin
        if spec.num_classes != package.num_classes:
            seed = spec.weights.seed
            note = f"the classifier is new, its weights random (seed {seed})"
    else:
        cfg = get_pretrained_cfg(spec.name)
        if not timm.is_model_pretrained(spec.name):
            raise InputError(f"timm has no pretrained weights for {spec.name}", "leave out weights='pretrained'")
        origin = cfg.hf_hub_id or cfg.url or spec.name
        if spec.num_classes and spec.num_classes != cfg.num_classes:
            seed = spec.weights.seed
            note = f"the classifier is new, its weights random (seed {seed})"
    spec = _with(spec, weights=Weights(kind="pretrained", origin=origin, seed=seed))
    try:
        with hub_or_cache():
            return _make(spec, fetch=True)[0], spec, note
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"the pretrained weights of {spec.reference} are not in the cache, and {why_not(error)}",
            f"give a file with weights=FILE, or {way_out(error)}",
        ) from error
    except Exception as error:
        raise InputError(
            f"the pretrained weights of {spec.reference} do not load: {first_line(error)}",
            "leave out what changes the architecture; if that is nothing, the cached file is damaged: delete it",
        ) from error


def _fitted(spec: ModelSpec) -> ModelSpec:
    """The spec, with the argument that tells a fixed-size architecture the input size that was asked for."""
    if spec.source == "file":
        return spec
    channels, *spatial = spec.input_size
    if spec.source == "torchvision":
        takes, extra = 3, size_arguments(spec.name, spatial)
    else:
        cfg = get_pretrained_cfg(spec.name)
        takes = spec.in_chans or cfg.input_size[0]
        differs = cfg.fixed_input_size and tuple(spatial) != tuple(cfg.input_size[1:])
        extra = {"img_size": spatial} if differs else {}
    if channels != takes:
        hint = f"in_chans={channels}" if spec.source == "timm" else "use timm's model of this kind with in_chans="
        raise InputError(f"{spec.reference} takes {takes} channels, not {channels}", hint)
    return _with(spec, model_args={**extra, **spec.model_args})


def default_input_size(model: nn.Module, spec: ModelSpec) -> tuple[int, ...]:
    """From torchvision's transforms or timm's configuration; a file's model may say its own in `input_size`."""
    if spec.source == "torchvision":
        return default_size(model, spec.name, spec.weights.origin if spec.weights.kind == "pretrained" else None)
    own: Any = getattr(model, "input_size", None)
    if spec.source == "file" and isinstance(own, (tuple, list)) and _are_sides(own):
        return tuple(own)
    cfg = getattr(model, "pretrained_cfg", None)
    channels, *spatial = (cfg.get("input_size") if isinstance(cfg, Mapping) else None) or _IMAGE
    if spec.source == "timm" and (img_size := spec.model_args.get("img_size")):
        spatial = [img_size] * 2 if isinstance(img_size, int) else img_size
    return (spec.in_chans or channels, *spatial)


def _are_sides(values: Sequence[Any]) -> bool:
    return len(values) in (2, 3, 4) and all(type(value) is int and value > 0 for value in values)


def _with(spec: ModelSpec, **changes: Any) -> ModelSpec:
    return spec.model_copy(update=changes)
