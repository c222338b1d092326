"""Plan -> the modified model, and back: restore() undoes it exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.optim import Optimizer

from poolswap.errors import InputError, PoolswapError
from poolswap.inputs import Example, floating_tensor
from poolswap.nn.conv import ConvThenPool
from poolswap.nn.head import HeadPool
from poolswap.surgery.calls import geometry_of, is_pool_module
from poolswap.surgery.head import described, widened
from poolswap.surgery.layers import layer_call, layer_obstacle
from poolswap.surgery.lift import is_lifted, lift, unlift, unwatch, watch
from poolswap.surgery.mark import replaced_by
from poolswap.surgery.optimizers import adopt
from poolswap.surgery.plan import Plan, Swap
from poolswap.surgery.probe import probe
from poolswap.surgery.proof import prove_swap
from poolswap.surgery.sites import PoolSite
from poolswap.surgery.standin import come_back, stand_in


class Swapped(BaseModel):
    """One module that was replaced: what it was, what it is, and the parameters it brought."""

    model_config = ConfigDict(frozen=True)

    path: str
    before: str
    after: str
    parameters: int


class SwapReport(BaseModel):
    """What `swap_pools` did: the modules it replaced, and the owners whose functional calls it lifted.

    `classifiers` are new and untrained, for a head that became wider.
    """

    model_config = ConfigDict(frozen=True)

    plan: Plan
    swapped: tuple[Swapped, ...]
    lifted: tuple[str, ...]
    classifiers: tuple[Swapped, ...] = ()


def swap_pools(
    model: nn.Module,
    plan: Plan,
    *,
    optimizers: Iterable[Optimizer] = (),
    example: Example | None = None,
    prove: bool = True,
) -> SwapReport:
    """Replace the planned sites, in place. The model keeps its shapes, device, dtype, mode and requires_grad.

    A replacement takes over the layer's hooks, attributes and class (see `surgery.standin`). One forward in eval mode,
    on `example` or noise of the plan's input size, proves that every planned site runs its replacement (see
    `surgery.proof`). New parameters join the `optimizers`, in the group of the parameters beside them.

    Everything is checked before anything is changed: InputError where a site of the plan is not in the model as the
    plan describes it. Raises CheckError where the proof fails; the model is restored.
    """
    swaps = {swap.site.path: swap for swap in plan.swaps}
    for swap in swaps.values():
        check_site(model, swap.site)
    with torch.inference_mode(mode=False):  # what comes in may be trained, wherever it was made
        replacements = {path: make_replacement(swap, plan, model) for path, swap in swaps.items()}
        classifiers = dict(
            widened(model, swaps[path], new.cells)
            for path, new in replacements.items()
            if isinstance(new, HeadPool) and new.cells > 1
        )
    lifted = lift(model, [*(swap.site for swap in swaps.values()), *plan.kept])
    swapped = tuple(_replace(model, path, new) for path, new in replacements.items())
    made = tuple(_replace(model, path, new) for path, new in classifiers.items())
    watch(model)
    if made and plan.input_size:
        _check_head(model, plan)
    if prove and swapped:
        try:
            prove_swap(model, plan, example)
        except PoolswapError:
            restore(model)
            raise
    adopt(optimizers, model, [*swaps, *classifiers])
    return SwapReport(plan=plan, swapped=swapped, lifted=tuple(lifted), classifiers=made)


def restore(model: nn.Module) -> None:
    """Undo every swap and every lift of the model, in place: the modules that were replaced come back themselves."""
    for module in list(model.modules()):
        if (old := replaced_by(module)) is not None:
            come_back(old, module)
            _put(model, module, old)
    for module in list(model.modules()):
        if is_lifted(module):
            unlift(module)
    unwatch(model)


def _replace(model: nn.Module, path: str, new: nn.Module) -> Swapped:
    old = model.get_submodule(path)
    stand_in(new, old)
    _put(model, old, new)
    theirs = set(old.parameters())  # a convolution's stay
    parameters = sum(p.numel() for p in new.parameters() if p not in theirs)
    return Swapped(path=path, before=_line(old), after=_line(new), parameters=parameters)


def _check_head(model: nn.Module, plan: Plan) -> None:
    """Run the head that became wider; put the model back where something before the classifier is in its way."""
    try:
        probe(model, plan.input_size or ())
    except InputError as error:
        restore(model)
        wide = next(swap.to for swap in plan.swaps if swap.site.scope == "global")
        raise InputError(
            f"the head has no room for {wide}: {error.message}", "to='soft', include_global=True"
        ) from error


def make_replacement(swap: Swap, plan: Plan, model: nn.Module) -> nn.Module:
    """What comes to stand at the swap's site, on the device and in the dtype around it; the model is left as it is."""
    operator = plan.operator(swap.to)
    new = operator.make(described(swap, operator, model), swap.options)
    if swap.site.op == "conv":
        conv: Any = model.get_submodule(swap.site.path)
        return ConvThenPool(conv, new.to(device=conv.weight.device, dtype=conv.weight.dtype))
    like = _neighbour(model, swap.site.path)
    return new if like is None else new.to(device=like.device, dtype=like.dtype)


def check_site(model: nn.Module, site: PoolSite) -> None:
    """Raise InputError where the model does not have this site, or it cannot be replaced."""
    hint = "make the plan from this very model"
    if not site.replaceable or site.call is None:
        raise InputError(f"{site.path} cannot be replaced: it {site.reason}", "poolswap inspect MODEL")
    try:
        module = model.get_submodule(site.owner if site.kind == "functional" else site.path)
    except AttributeError:
        raise InputError(f"the plan names {site.path}, which is not in the model", hint) from None
    if site.kind == "functional":
        name = site.path.rpartition(".")[2]
        if ".".join(filter(None, [site.owner, name])) != site.path or not name.isidentifier():
            raise InputError(
                f"the plan names {site.path}, which cannot be a child of {site.owner or 'the model'}", hint
            )
        if not is_lifted(module) and hasattr(module, name):
            raise InputError(f"the plan names {site.path}, which the model has as something else", hint)
        if is_lifted(module) and not hasattr(module, name):
            raise InputError(f"{site.owner} is lifted, but has no child for {site.path}", hint)
        return
    if not site.path:
        raise InputError("the model itself is a pooling layer", "wrap it in torch.nn.Sequential")
    if site.kind in ("conv", "roi"):
        found = layer_call(module) == site.call and layer_obstacle(module) is None
    else:
        found = is_pool_module(module) and geometry_of(module) == site.call.geometry
    if not found:
        raise InputError(f"the plan has {site.op} pooling {site.call} at {site.path}; there is {_line(module)}", hint)


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is registered: a shared module has several parents."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _neighbour(model: nn.Module, path: str) -> torch.Tensor | None:
    """A floating point tensor near the path, whose device and dtype the replacement takes."""
    while path:
        path = path.rpartition(".")[0]
        try:
            around = model.get_submodule(path)
        except AttributeError:
            continue
        like = floating_tensor(around)
        if like is not None:
            return like
    return None


def _line(module: nn.Module) -> str:
    geometry = geometry_of(module) if is_pool_module(module) else None
    return f"{type(module).__name__} {geometry}" if geometry else type(module).__name__
