"""What SoftPool's beta has become, and what it makes of its layer: average pooling, max pooling, or between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.errors import MissingExtraError
from poolswap.files import atomic_path
from poolswap.inputs import evaluating, floating_tensor
from poolswap.nn.conv import ConvThenPool
from poolswap.nn.soft import AdaptiveSoftPool, GlobalSoftPool, SoftPool
from poolswap.nn.windows import window_max, window_mean
from poolswap.surgery.plan import Plan

SOFT = (SoftPool, AdaptiveSoftPool, GlobalSoftPool)

_AVG = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


class LayerBeta(BaseModel):
    """One SoftPool: the layer `op` that it replaced, where beta began, and what it is: one value, or one a channel.

    `position` says of each channel what beta does to real maps, whatever their scale: 0 where the layer averages its
    windows, 1 where it takes their maximum, below 0 where it leans towards the minimum; None where no window varied.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    op: str
    learnt: bool
    start: float
    beta: tuple[float, ...]
    position: tuple[float | None, ...] = ()


def layer_betas(model: nn.Module, plan: Plan, images: Tensor | None = None) -> tuple[LayerBeta, ...]:
    """Every SoftPool of the plan in call order; `images` (N, C, *spatial) give the positions, from one forward."""
    found = dict(_soft(model, plan))
    places = _positions(model, found, images) if images is not None and found else {}
    ops = {swap.site.path: swap.site.op for swap in plan.swaps}
    return tuple(
        LayerBeta(
            path=path,
            op=ops[path],
            learnt="beta" in module._parameters,
            start=module.start,
            beta=tuple(_beta(module).detach().flatten().tolist()),
            position=places.get(path, ()),
        )
        for path, module in found.items()
    )


def mean_beta(model: nn.Module, plan: Plan) -> float | None:
    """The mean over the layers of the plan, each the mean of its channels; None without a SoftPool."""
    means = [float(_beta(module).detach().mean()) for _, module in _soft(model, plan)]
    return sum(means) / len(means) if means else None


def beta_penalty(model: nn.Module, decay: float) -> Tensor | float:
    """decay / 2 * sum (beta - start)^2 over every learnt beta of the model, to be added to a loss.

    Weight decay towards the start instead of 0: L2-SP (Li, Grandvalet, Davoine, ICML 2018).
    """
    penalty: Tensor | float = 0.0
    for module in model.modules():
        if "beta" in module._parameters and hasattr(module, "start"):
            penalty = penalty + (_beta(module) - float(module.start)).square().sum()  # type: ignore[arg-type]
    return decay / 2 * penalty


def draw_betas(betas: tuple[LayerBeta, ...], path: Path | str, *, title: str = "") -> None:
    """beta of each layer's channels, and their positions: PNG, SVG or PDF by the name, replaced if it exists.

    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib, which draws the betas,", "plot") from None
    figure = Figure(figsize=(max(5.0, 2 + 0.7 * len(betas)), 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _strips(above, [list(layer.beta) for layer in betas])
    above.scatter(
        range(len(betas)), [layer.start for layer in betas], marker="_", s=300, color="tab:red", label="start"
    )
    above.set(ylabel="beta")
    above.legend(loc="best", fontsize="small")
    _strips(below, [[place for place in layer.position if place is not None] for layer in betas])
    below.set(ylabel="average 0 ... 1 max")
    below.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    below.set_xticks(range(len(betas)), [f"{layer.path}\n({layer.op})" for layer in betas], rotation=30, ha="right")
    for axes in (above, below):
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.grid(alpha=0.3, axis="y")
    figure.suptitle(title)
    with atomic_path(path, force=True) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip("."), dpi=120)


def _strips(axes: Any, layers: list[list[float]]) -> None:
    """A column of points a layer, spread sideways so that they can be told apart, and their median."""
    for x, values in enumerate(layers):
        if values:
            ordered = sorted(values)
            sideways = [x + 0.3 * ((0.618 * n) % 1 - 0.5) for n in range(len(ordered))]
            axes.scatter(sideways, ordered, s=8, alpha=0.5, color="tab:blue")
            axes.scatter([x], [ordered[len(ordered) // 2]], s=40, color="black", zorder=3)


def _soft(model: nn.Module, plan: Plan) -> Iterator[tuple[str, Any]]:
    for path in plan.paths:
        module = model.get_submodule(path)
        module = module.pool if isinstance(module, ConvThenPool) else module
        if isinstance(module, SOFT):
            yield path, module


def _beta(module: nn.Module) -> Tensor:
    beta = module.beta
    assert isinstance(beta, Tensor)
    return beta


def _positions(model: nn.Module, modules: dict[str, Any], images: Tensor) -> dict[str, tuple[float | None, ...]]:
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in modules}

    def keep(path: str) -> Any:  # and pool later: what a hook calls is its owner's own call
        def hook(module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> None:
            (x,) = (*args, *kwargs.values())
            seen[path].append((x.detach().clone(), y.detach().clone()))

        return hook

    handles = [module.register_forward_hook(keep(path), with_kwargs=True) for path, module in modules.items()]
    like = floating_tensor(model)
    try:
        with evaluating(model), torch.no_grad():
            model(images if like is None else images.to(like.device, like.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return {path: _position(modules[path], pairs) for path, pairs in seen.items() if pairs}


def _position(module: Any, pairs: list[tuple[Tensor, Tensor]]) -> tuple[float | None, ...]:
    moved = [torch.stack(_moved(module, x.float(), y.float())) for x, y in pairs]
    ups, ranges = torch.stack(moved).sum(0).tolist()
    return tuple(up / whole if whole > 0 else None for up, whole in zip(ups, ranges, strict=True))


def _moved(module: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(y - mean, maximum - mean), summed over the windows of each channel."""
    if isinstance(module, GlobalSoftPool):
        flat = x.movedim(module.axes, tuple(range(-len(module.axes), 0))).flatten(-len(module.axes))
        mean, maximum = flat.mean(-1, keepdim=True), flat.amax(-1, keepdim=True)
        dims = 1
    elif isinstance(module, AdaptiveSoftPool):
        dims = len(module.output_size)
        size: Any = module.output_size
        mean, maximum = _AVG[dims](x, size), _MAX[dims](x, size)
    else:
        dims = module.geometry.dims
        batched = x if x.dim() == dims + 2 else x.unsqueeze(0)
        mean, maximum = window_mean(batched, module.geometry), window_max(batched, module.geometry)
    kept = (*range(mean.dim() - dims - 1), *range(mean.dim() - dims, mean.dim()))  # all but the channels
    return (y.reshape(mean.shape) - mean).sum(kept), (maximum - mean).sum(kept)
