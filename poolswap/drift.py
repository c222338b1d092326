"""What a swap changed: how far each site's output and the model's outputs moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from poolswap.lift import lift
from poolswap.plan import Plan
from poolswap.probe import Args, Example, example_inputs
from poolswap.swap import restore, swap_pools

_SEED = 0


class SiteDrift(BaseModel):
    """Relative change |swapped - stock| / |stock| (Euclidean) of one site's output.

    `local` feeds the replacement what the stock layer was fed; `total` is inside the swapped model, where the sites
    before it have moved its input too.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    local: float
    total: float


class Drift(BaseModel):
    """How far the sites and the model's outputs moved on one seeded input. `output` is None where shapes differ."""

    model_config = ConfigDict(frozen=True)

    sites: tuple[SiteDrift, ...]
    output: float | None
    seed: int = _SEED


def measure_drift(
    model: nn.Module, plan: Plan, input_size: Sequence[int], *, batch: int = 2, example: Example | None = None
) -> Drift:
    """Run the stock model and the swapped one on the same seeded input, in eval mode; the model is left as it was.

    `input_size` is (C, *spatial); the input is standard normal noise unless `example` is given.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        inputs = example_inputs(model, input_size, batch, "cpu", example)
    inputs = _move(inputs, device, model)
    try:
        lift(model, [*(swap.site for swap in plan.swaps), *plan.kept])
        kept_inputs: dict[str, list[Any]] = {}
        stock: dict[str, list[Tensor]] = {}
        before = _run(model, plan.paths, inputs, lambda path, x, y: _keep(kept_inputs, stock, path, x, y))
        swap_pools(model, plan)
        modules = {path: model.get_submodule(path) for path in plan.paths}
        with torch.no_grad():
            local = {p: _relative([modules[p](x) for x in kept_inputs[p]], stock[p]) for p in stock}
        swapped: dict[str, list[Tensor]] = {}
        after = _run(model, plan.paths, inputs, lambda path, x, y: swapped.setdefault(path, []).append(y))
    finally:
        restore(model)
        for module, mode in training.items():
            module.training = mode
    return Drift(
        sites=tuple(
            SiteDrift(path=path, local=local[path], total=_relative(swapped[path], stock[path]))
            for path in plan.paths
            if path in stock and path in swapped
        ),
        output=_relative(after, before) if [t.shape for t in after] == [t.shape for t in before] else None,
    )


def _run(
    model: nn.Module,
    paths: Sequence[str],
    inputs: tuple[Args, dict[str, Any]],
    see: Callable[[str, Tensor, Tensor], Any],
) -> list[Tensor]:
    """The floating point outputs of one forward; `see` gets (path, input, output) of every watched module."""

    def watch(path: str) -> Callable[[nn.Module, Args, Tensor], None]:
        return lambda module, args, output: see(path, args[0], output)

    handles = [model.get_submodule(path).register_forward_hook(watch(path)) for path in paths]
    try:
        with torch.no_grad():
            output = model(*inputs[0], **inputs[1])
    finally:
        for handle in handles:
            handle.remove()
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _keep(inputs: dict[str, list[Any]], outputs: dict[str, list[Tensor]], path: str, x: Tensor, y: Tensor) -> None:
    inputs.setdefault(path, []).append(x.clone())  # cloned: an in-place activation may follow
    outputs.setdefault(path, []).append(y.clone())


def _relative(after: list[Tensor], before: list[Tensor]) -> float:
    if [t.shape for t in after] != [t.shape for t in before]:
        return float("nan")
    moved = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(after, before, strict=True))
    size = sum(float(b.double().square().sum()) for b in before)
    return (moved / size) ** 0.5 if size else 0.0 if not moved else float("inf")


def _move(inputs: tuple[Args, dict[str, Any]], device: torch.device, model: nn.Module) -> tuple[Args, dict[str, Any]]:
    """The inputs on the model's device, floating point ones in its dtype."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(item) for item in value]
        if not isinstance(value, Tensor):
            return value
        return value.to(device, dtype if value.is_floating_point() else None)

    return tuple(map(move, inputs[0])), {name: move(value) for name, value in inputs[1].items()}
