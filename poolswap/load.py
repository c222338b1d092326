"""What a user names -> a model: by its name from a library, or from a poolswap checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from poolswap.checkpoint import load_checkpoint
from poolswap.errors import InputError
from poolswap.manifest import is_checkpoint
from poolswap.models.load import ModelSpec, create_model
from poolswap.models.package import FOLDER, HUB, folder_of, hub_checkpoint


def load_model(
    reference: str | Path,
    *,
    weights: Literal["random", "pretrained"] | Path | str = "random",
    num_classes: int | None = None,
    in_chans: int | None = None,
    input_size: Sequence[int] | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    trust_code: bool = False,
) -> tuple[nn.Module, ModelSpec]:
    """(model in eval mode, its spec) from a name, or rebuilt from a poolswap checkpoint alone.

    Names: NAME, timm:NAME, torchvision:NAME, hf-hub:ORG/NAME, local-dir:PATH or a folder with a config.json (one that
    poolswap exported is its checkpoint), path/to/net.py:factory; the keyword arguments are those of
    `poolswap.models.load.create_model`. A checkpoint brings its own weights, arguments and input size; one whose
    model is made by a user's file runs that file only with trust_code=True. Raises InputError for what cannot be
    loaded.
    """
    own = checkpoint_of(reference)
    if own is None:
        folder = folder_of(reference)
        return create_model(
            str(reference) if folder is None else f"{FOLDER}{folder}",
            weights=weights,
            num_classes=num_classes,
            in_chans=in_chans,
            input_size=input_size,
            model_args=model_args,
            seed=seed,
            device=device,
        )
    if weights != "random" or model_args or any(given is not None for given in (num_classes, in_chans, input_size)):
        raise InputError(
            f"{reference} is a checkpoint: it brings its own weights, arguments and input size", "leave the others out"
        )
    model, manifest = load_checkpoint(own, trust_code=trust_code)
    return (model.to(device) if device is not None else model), manifest.model


def checkpoint_of(reference: str | Path) -> Path | None:
    """The poolswap checkpoint that a reference names; None for a name of a model.

    A path, the folder of its export, or hf-hub:ORG/NAME where that was uploaded to, which asks the Hub.
    """
    if str(reference).startswith(HUB):
        return hub_checkpoint(str(reference))
    folder = folder_of(reference)
    if folder is not None:
        own = folder / "model.safetensors"
        return own if is_checkpoint(own) else None
    return Path(reference) if is_checkpoint_path(reference) else None


def is_checkpoint_path(reference: str | Path) -> bool:
    """Whether a model reference is the path of a checkpoint, rather than a name."""
    return isinstance(reference, Path) or reference.endswith(".safetensors")
