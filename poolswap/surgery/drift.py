"""What a swap changed: how far each site's output and the model's outputs moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from poolswap.errors import InputError, first_line
from poolswap.inputs import Args, Example, Inputs, evaluating, outputs_of, seeded_inputs
from poolswap.measure import relative_distance
from poolswap.surgery.calls import StockPool, call_input
from poolswap.surgery.lift import lift
from poolswap.surgery.mark import replaced_modules
from poolswap.surgery.plan import Plan
from poolswap.surgery.probe import rehearse
from poolswap.surgery.swap import check_site, restore, swap_pools

_SEED = 0


class SiteDrift(BaseModel):
    """Relative change |swapped - stock| / |stock| (Euclidean) of one site's output.

    `local` feeds the replacement what the stock layer was fed; `total` is inside the swapped model, where the sites
    before it have moved its input too. None where shapes differ, or an output is not finite.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    local: float | None
    total: float | None


class Drift(BaseModel):
    """How far the sites and the model's outputs moved on one seeded input. `output` is None as a site's."""

    model_config = ConfigDict(frozen=True)

    sites: tuple[SiteDrift, ...]
    output: float | None
    seed: int = _SEED


def measure_drift(
    model: nn.Module, plan: Plan, input_size: Sequence[int], *, batch: int = 2, example: Example | None = None
) -> Drift:
    """Run the stock model and the swapped one on the same seeded input, in eval mode; the model is left as it was.

    So is torch's generator: a swap that follows draws the parameters that were measured.

    `input_size` is (C, *spatial); the input is standard normal noise unless `example` is given. Raises InputError for a
    model that is swapped already, a plan that does not fit it, and replacements that do not run; TooLargeError for
    those that take more than `poolswap.budget` allows.
    """
    if any(replaced_modules(model)):
        raise InputError("the model is swapped already", "measure the drift before the swap")
    for swap in plan.swaps:
        check_site(model, swap.site)
    inputs = seeded_inputs(model, input_size, seed=_SEED, batch=batch, example=example)
    kept_inputs: dict[str, list[Inputs]] = {}
    stock: dict[str, list[Tensor]] = {}
    swapped: dict[str, list[Tensor]] = {}
    with evaluating(model), torch.random.fork_rng(devices=[]):
        try:
            lift(model, [*(swap.site for swap in plan.swaps), *plan.kept])
            with _seeing(model, plan.paths, kept_inputs, stock):
                before = outputs_of(model, inputs)
            swap_pools(model, plan, prove=False)
            rehearse(model, input_size, batch, example)
            with _explained():
                local = {path: _local(model.get_submodule(path), kept_inputs[path], stock[path]) for path in stock}
                with _seeing(model, plan.paths, {}, swapped):
                    after = outputs_of(model, inputs)
        finally:
            restore(model)
    return Drift(
        sites=tuple(
            SiteDrift(path=path, local=local[path], total=_moved(swapped[path], stock[path]))
            for path in plan.paths
            if path in stock and path in swapped
        ),
        output=_moved(after, before),
    )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = f"the model does not run with what the plan puts in: {first_line(error)}"
        raise InputError(reason, "give those sites other windows, or leave them out") from error


@contextmanager
def _seeing(
    model: nn.Module, paths: Sequence[str], inputs: dict[str, list[Inputs]], outputs: dict[str, list[Tensor]]
) -> Iterator[None]:
    """Keeps what goes into and comes out of the modules at `paths`; cloned, for in-place activations may follow."""

    def keep(path: str) -> Callable[[nn.Module, Args, dict[str, Any], Tensor], None]:
        def hook(module: nn.Module, args: Args, kwargs: dict[str, Any], output: Tensor) -> None:
            if isinstance(module, StockPool):  # its arguments are those of a function of torch
                args, kwargs = (call_input(args, kwargs),), {}
            inputs.setdefault(path, []).append(_clones((args, kwargs)))
            outputs.setdefault(path, []).append(output.clone())

        return hook

    handles = [model.get_submodule(path).register_forward_hook(keep(path), with_kwargs=True) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _clones(inputs: Inputs) -> Inputs:
    cloned: Inputs = tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, inputs)
    return cloned


def _local(replacement: nn.Module, inputs: list[Inputs], stock: list[Tensor]) -> float | None:
    with torch.no_grad():
        return _moved([replacement(*args, **kwargs) for args, kwargs in inputs], stock)


def _moved(after: list[Tensor], before: list[Tensor]) -> float | None:
    distance = relative_distance(after, before)
    return distance if isfinite(distance) else None
