"""A folder in the Hugging Face layout: timm's config.json, the checkpoint as model.safetensors, a model card."""

from __future__ import annotations

from pathlib import Path

from timm.models import save_for_hf
from torch import Tensor

from poolswap.checkpoint import save_checkpoint
from poolswap.errors import InputError
from poolswap.export.job import Arguments, Job, Runner
from poolswap.inputs import outputs_of
from poolswap.load import load_model

WEIGHTS = "model.safetensors"


def write(job: Job, path: Path) -> None:
    """Raises InputError for a model that is not timm's."""
    spec = job.manifest.model
    if spec.source != "timm":
        raise InputError(f"{spec.reference} is not a timm model", "the format state-dict takes any model")
    path.mkdir()
    save_for_hf(job.model, path, model_args=spec.model_args or None, safe_serialization=True)
    save_checkpoint(
        job.model, path / WEIGHTS, spec=spec, plan=job.manifest.plan, recipe=job.manifest.recipe, force=True
    )
    (path / "README.md").write_text(card(job), encoding="utf-8")


def card(job: Job) -> str:
    """The model card: what was swapped, where the weights are from, how to load it."""
    spec, plan = job.manifest.model, job.manifest.plan
    rows = [
        f"| `{s.site.path}` | {s.site.op} {s.geometry or s.site.geometry or s.site.scope} | {s.to} |"
        for s in plan.swaps
    ]
    return "\n".join(
        [
            "---",
            "library_name: timm",
            "tags: [image-classification, timm, poolswap]",
            "---",
            f"# {spec.name} with other pooling",
            "",
            f"timm's `{spec.name}` after `poolswap` replaced {len(plan.paths)} pooling layers. "
            f"Weights: {spec.weights}. Input size: {'x'.join(map(str, spec.input_size))}.",
            "",
            "| path | was | is |",
            "|---|---|---|",
            *rows,
            "",
            "It is not the stock architecture, and `timm.create_model` refuses these weights rather than load them into"
            " it. Load it with:",
            "",
            "```python",
            "import poolswap",
            "",
            f'model, spec = poolswap.load_model("{WEIGHTS}")',
            "```",
            "",
        ]
    )


def runner(job: Job, path: Path) -> Runner:
    """The model as poolswap rebuilds it from the folder's weights."""
    model, _ = load_model(path / WEIGHTS)

    def run(arguments: Arguments) -> list[Tensor]:
        return outputs_of(model, (arguments, {}))

    return run
