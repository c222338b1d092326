"""SoftPool's beta on its way from the stock layer to the target: a pretrained network starts where it was."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from poolswap.adapt.betas import SOFT
from poolswap.surgery.plan import Plan

# Nearly max pooling for activations of the order of one: where the runner-up is 0.2 below, it weighs exp(-6.4).
MAX_BETA = 32.0


class Annealing:
    """Moves beta of every SoftPool of the plan: from MAX_BETA (for max) or 0 (for average pooling) to its own start.

    A stock max layer's beta falls geometrically, an average layer's rises linearly; `fraction` of the training is the
    way, and nothing is touched after its end, where a learnt beta goes on by itself. With fraction 0 beta stays.
    """

    def __init__(self, model: nn.Module, plan: Plan, fraction: float) -> None:
        self.fraction = fraction
        self.done = False
        self.targets: dict[str, tuple[str | None, float]] = {}
        for swap in plan.swaps if fraction else ():
            module = model.get_submodule(swap.site.path)
            if isinstance(module, SOFT):
                self.targets[swap.site.path] = (swap.site.op, float(module.start))

    def beta(self, path: str, progress: float) -> float:
        """Beta of one layer when `progress` of the training, from 0 to 1, is done."""
        op, target = self.targets[path]
        way = min(progress / self.fraction, 1.0)
        if way >= 1:
            return target
        if op == "max" and target > 0:
            return float(MAX_BETA * (target / MAX_BETA) ** way)
        start = MAX_BETA if op == "max" else 0.0
        return start + (target - start) * way

    def go_on(self, progress: float, update: float) -> None:
        """Take up a training at `progress`, whose last update was `update` of the whole."""
        self.done = progress > 0 and progress - update >= self.fraction

    @torch.no_grad()
    def set(self, models: Iterable[nn.Module], progress: float) -> None:
        """Put the betas of this moment into the models. Once the way is behind, they are left to the optimiser."""
        if self.done:
            return
        self.done = progress >= self.fraction
        for model in models:
            for path in self.targets:
                beta = model.get_submodule(path).beta
                assert isinstance(beta, torch.Tensor)
                beta.fill_(self.beta(path, progress))
