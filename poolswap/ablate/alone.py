"""How sensitive each layer is: the adapted control with that one layer replaced, judged on real images as it is."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import nn

from poolswap.ablate.grid import Probe
from poolswap.ablate.runs import Alone
from poolswap.adapt import Evaluation, Loader, evaluate
from poolswap.errors import PoolswapError
from poolswap.models.load import ModelSpec
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools


def replace_alone(
    model: nn.Module, probe: Probe, spec: ModelSpec, images: Loader, control: Evaluation
) -> tuple[Alone, ...]:
    """The change of each of the probe's layers against `control`, which is the model's own evaluation.

    Nothing is adapted after the replacement, and the model stays as it is. A layer that the operator does not suit is
    left out: the study's own trials of it say why.
    """
    return tuple(_each(model, probe, spec, images, control))


def _each(model: nn.Module, probe: Probe, spec: ModelSpec, images: Loader, control: Evaluation) -> Iterator[Alone]:
    sites = find_pools(model, spec.input_size)
    for site in sites:
        if site.path not in probe.paths:
            continue
        plan = make_plan(
            sites, f"#{site.number}", probe.to, include_global=True, model=spec.reference, input_size=spec.input_size
        )
        swapped = deepcopy(model)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                swap_pools(swapped, plan)
            found = evaluate(swapped, images, shift=None)
        except PoolswapError:
            continue
        yield Alone(path=site.path, to=probe.to, top1=found.top1 - control.top1, loss=found.loss - control.loss)
