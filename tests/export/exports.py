"""Swapped models with the manifest that an export takes."""

from pathlib import Path

from poolswap.checkpoint import save_checkpoint
from poolswap.models import create_model
from poolswap.plan import make_plan
from poolswap.sites import find_pools
from poolswap.swap import swap_pools

HERE = Path(__file__).parent
NETS = HERE.parent / "nets.py"


def swapped(folder, reference, input_size=None, to="soft", include_global=True):
    """(model, manifest, checkpoint) of `reference` with every pooling site replaced."""
    model, spec = create_model(reference, input_size=input_size)
    sites = find_pools(model, spec.input_size)
    plan = make_plan(sites, to=to, include_global=include_global, model=spec.reference, input_size=spec.input_size)
    swap_pools(model, plan)
    path = folder / "model-softpool.safetensors"
    return model, save_checkpoint(model, path, spec=spec, plan=plan, force=True), path
