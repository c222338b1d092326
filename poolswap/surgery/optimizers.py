"""Optimizers that were made before the swap learn of the parameters that the swap brought."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer

from poolswap.surgery.mark import replaced_by

Group = dict[str, Any]


def adopt(optimizers: Iterable[Optimizer], model: nn.Module, paths: Iterable[str]) -> None:
    """Give the optimizers the trainable parameters of the replacements at `paths`, and take away those they replace.

    A parameter joins the group of what it replaces, else of the nearest parameters that an optimizer has: those of the
    module that the replacement is in, or of the module around that. So it gets the settings of the layers beside it.
    """
    optimizers = list(optimizers)
    groups: dict[nn.Parameter, Group] = {p: g for o in optimizers for g in o.param_groups for p in g["params"]}
    for path in paths:
        new = model.get_submodule(path)
        old = replaced_by(new)
        gone = set(old.parameters()) - set(new.parameters()) if old is not None else set()
        nearest = (p for p in (*gone, *new.parameters(), *_around(model, path)) if p in groups)
        home = groups.get(next(nearest, None))  # type: ignore[arg-type]
        if home is not None:
            home["params"] = [p for p in home["params"] if p not in gone]
            home["params"] += [p for p in new.parameters() if p.requires_grad and p not in groups]
        for optimizer in optimizers:
            for parameter in gone:
                optimizer.state.pop(parameter, None)


def _around(model: nn.Module, path: str) -> Iterator[nn.Parameter]:
    while path:
        path = path.rpartition(".")[0]
        yield from model.get_submodule(path).parameters()
