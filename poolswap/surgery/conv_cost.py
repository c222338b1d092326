"""What a convolution costs without its stride, before anything is replaced: work, memory, time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import nn

from poolswap.measure import interleave
from poolswap.surgery.plan import Plan
from poolswap.surgery.swap import check_site, make_replacement

_ROUNDS = 5
_SECONDS = 2.0


@dataclass(frozen=True)
class ConvCost:
    """One convolution that gives its stride to a pooling.

    `work` is its multiply-adds as a multiple of the strided one's. `map_bytes` is the map between the two, for one
    image, which training keeps too. `time` is the pair's as a multiple of the strided one's: one image, forward alone.
    """

    path: str
    work: float
    map_bytes: int
    time: float


def conv_costs(model: nn.Module, plan: Plan) -> tuple[ConvCost, ...]:
    """The cost of every convolution that the plan replaces; the model is left as it is. Some seconds at most for each.

    Measured on the model's device and in its dtype. Raises InputError as `swap_pools` does for a plan of another model.
    """
    found = {}
    for swap in plan.swaps:
        site = swap.site
        if site.kind == "conv" and site.path not in found:
            check_site(model, site)
            found[site.path] = _cost(model, site.path, make_replacement(swap, plan, model), site.input_shape)
    return tuple(found.values())


def _cost(model: nn.Module, path: str, new: nn.Module, shape: tuple[int, ...]) -> ConvCost:
    old, maps = model.get_submodule(path), []
    weight = old.weight
    assert isinstance(weight, torch.Tensor)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
    pool = new.get_submodule("pool")
    handle = pool.register_forward_pre_hook(lambda module, args: maps.append(args[0]))
    strided = _run(old, x)
    _run(new, x)
    handle.remove()
    (between,) = maps
    turns: dict[str, Callable[[], object]] = {"strided": partial(_run, old, x), "new": partial(_run, new, x)}
    timed = interleave(turns, _ROUNDS, warmup=1, device=weight.device, limit=_SECONDS)
    work = prod(between.shape) / strided.numel()
    return ConvCost(path, work, between.nbytes // shape[0], timed.ratio("new", "strided").median)


@torch.no_grad()
def _run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = module(x)
    return y
