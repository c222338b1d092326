"""What a module that was swapped in remembers: the module that it stands for."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def mark(new: nn.Module, old: nn.Module) -> None:
    """Let `new` remember that it replaced `old`."""
    vars(new)["_replaced"] = old  # not an attribute of the module: it would become a submodule


def replaced_by(module: nn.Module) -> nn.Module | None:
    """The module that this one replaced; None for one that was not swapped in."""
    old: nn.Module | None = vars(module).get("_replaced")
    return old


def replaced_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of every module that was swapped into the model."""
    return ((path, module) for path, module in model.named_modules() if replaced_by(module) is not None)
