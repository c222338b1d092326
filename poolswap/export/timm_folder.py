"""A folder in the Hugging Face layout: a config.json, the checkpoint as model.safetensors, a model card."""

from __future__ import annotations

import json
from pathlib import Path

from timm.models import save_for_hf
from torch import Tensor

from poolswap.checkpoint import save_checkpoint
from poolswap.errors import InputError
from poolswap.export.card import card
from poolswap.export.job import Arguments, Job, Runner
from poolswap.inputs import outputs_of
from poolswap.load import load_model
from poolswap.models.package import CONFIG_KEY
from poolswap.versions import own_version

WEIGHTS = "model.safetensors"
_OF_WEIGHTS = {"tag", "license", "origin_url", "paper_ids", "paper_name", "url", "hf_hub_id", "notes"}


def write(job: Job, path: Path) -> None:
    """Raises InputError for a model that is not timm's."""
    spec = job.manifest.model
    if spec.source != "timm":
        raise InputError(f"{spec.reference} is not a timm model", "the format state-dict takes any model")
    path.mkdir()
    save_for_hf(job.model, path, model_args=spec.model_args or None, safe_serialization=True)
    save_checkpoint(
        job.model,
        path / WEIGHTS,
        spec=spec,
        plan=job.manifest.plan,
        recipe=job.manifest.recipe,
        example=job.manifest.example,
        force=True,
    )
    _claim(path / "config.json", pretrained=spec.weights.kind == "pretrained")
    (path / "README.md").write_text(card(job), encoding="utf-8")


def _claim(path: Path, *, pretrained: bool) -> None:
    """Make the config.json poolswap's: timm knows no such architecture, and so never builds the stock one from it.

    What it says of weights stays only where those are in the file.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config = {**config, "architecture": f"poolswap-{config['architecture']}", CONFIG_KEY: {"version": own_version()}}
    if not pretrained:
        config["pretrained_cfg"] = {k: v for k, v in config["pretrained_cfg"].items() if k not in _OF_WEIGHTS}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def runner(job: Job, path: Path) -> Runner:
    """The model as poolswap rebuilds it from the folder's weights."""
    model, _ = load_model(path / WEIGHTS)

    def run(arguments: Arguments) -> list[Tensor]:
        return outputs_of(model, (arguments, {}))

    return run
