"""A timm model packaged with its configuration: hf-hub:org/name, local-dir:PATH, or a folder with a config.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from huggingface_hub import hf_hub_download
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from timm.models import load_model_config_from_hf
from timm.models._hub import load_model_config_from_path

from poolswap.errors import InputError, first_line, in_words
from poolswap.models.network import hub_or_cache, way_out, why_not

HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIG_KEY = "poolswap"  # of the config.json of a folder that poolswap exported
_LARGEST = 2**20  # bytes of a configuration; ImageNet's names make 30 kilobytes


class Package(BaseModel):
    """What the configuration says: an architecture of timm's and its arguments. `origin` is where its weights are."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    origin: str
    architecture: str
    model_args: dict[str, Any]
    num_classes: int | None = Field(ge=0)
    in_chans: int | None = Field(ge=1)
    input_size: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(min_length=2, max_length=4)


def folder_of(reference: str | Path) -> Path | None:
    """The folder that a reference names: local-dir:PATH, or the plain path of a folder with a config.json."""
    text = str(reference)
    if text.startswith(FOLDER):
        return Path(text.removeprefix(FOLDER))
    return Path(text) if (Path(text) / "config.json").is_file() else None


@cache
def hub_checkpoint(reference: str) -> Path | None:
    """The checkpoint, in the Hub's cache, of a repository that holds one of poolswap's folders; None for any other.

    hf-hub:ORG/NAME, or hf-hub:ORG/NAME@REVISION. Raises InputError where the Hub cannot be asked.
    """
    name, _, revision = reference.removeprefix(HUB).partition("@")
    try:
        with hub_or_cache():
            config = Path(hf_hub_download(name, "config.json", revision=revision or None))
            if CONFIG_KEY not in json.loads(config.read_text(encoding="utf-8")):
                return None
            return Path(hf_hub_download(name, "model.safetensors", revision=revision or None))
    except OSError as error:
        raise InputError(f"{reference} cannot be read: {why_not(error)}", way_out(error)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{reference} cannot be read: {first_line(error)}", "write hf-hub:ORG/NAME") from error


def read_package(reference: str) -> Package | None:
    """The package that a reference names, or None for any other name; its weights are not touched.

    hf-hub: reads the Hub, or its cache. Raises InputError where there is no configuration of a timm model.
    """
    folder = folder_of(reference)
    if folder is None and not reference.startswith(HUB):
        return None
    try:
        if folder is not None:
            _check_file(folder / "config.json")
            origin, (cfg, architecture, model_args) = f"{FOLDER}{folder}", load_model_config_from_path(folder)
        else:
            origin = reference
            with hub_or_cache():
                cfg, architecture, model_args = load_model_config_from_hf(reference.removeprefix(HUB))
        args = dict(model_args or {})
        size = cfg.get("input_size") or None
        return Package(
            origin=origin,
            architecture=architecture,
            num_classes=args.pop("num_classes", cfg.get("num_classes")),
            in_chans=args.pop("in_chans", size[0] if size else None),
            model_args=args,
            input_size=size,
        )
    except OSError as error:
        hint = way_out(error) if folder is None else "give a folder that timm's save_for_hf made"
        reason = first_line(error) if folder is not None else why_not(error)
        raise InputError(f"{reference} has no configuration that can be read: {reason}", hint) from error
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"the config.json of {reference} is not one of a timm model: {_reason(error)}",
            "write a factory in a file of your own: path/to/net.py:factory",
        ) from error


def _check_file(path: Path) -> None:
    """Raise OSError for a pipe or a device, which may have no end."""
    if path.exists() and not (path.is_file() and path.stat().st_size <= _LARGEST):
        raise OSError("config.json is no file of a few kilobytes")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return in_words(f"{error.errors()[0]['loc'][0]} {error.errors()[0]['msg']}")
    return first_line(error)
