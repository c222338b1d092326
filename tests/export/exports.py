"""Swapped models with the manifest that an export takes."""

from pathlib import Path

from poolswap.checkpoint import save_checkpoint
from poolswap.models.load import create_model
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

HERE = Path(__file__).parent
NETS = HERE.parent / "nets.py"


def swapped(folder, reference, input_size=None, model_args=None, include_global=True, example=None, **planned):
    """(model, manifest, checkpoint) of `reference` with every pooling site replaced, or as `planned` says."""
    model, spec = create_model(reference, input_size=input_size, model_args=model_args)
    plan = make_plan(
        find_pools(model, spec.input_size, example=example),
        include_global=include_global,
        input_size=spec.input_size,
        **planned,
    )
    swap_pools(model, plan, example=example)
    path = folder / "model-softpool.safetensors"
    return model, save_checkpoint(model, path, spec=spec, plan=plan, example=example, force=True), path
