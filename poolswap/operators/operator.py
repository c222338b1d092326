"""One pooling operator as the commands see it: its options, read off its class, and how to make one for a site."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from poolswap.errors import InputError
from poolswap.geometry import Geometry

# What the site gives an operator, not its user: number of channels, the stock layer, the layer to start as, and
# whether a head keeps axes of size 1.
FROM_SITE = ("channels", "stock", "start", "keepdim")


Init = Literal["identity", "published"]


@dataclass(frozen=True)
class Operator:
    """One pooling operator: its name, class, and what it computes in a line.

    The class takes a Geometry, then options by name. Three names are filled in from the site where the class has them:
    `channels`; `stock`, the layer ("max" or "avg") that it replaces; and `start`, the layer that its initial parameters
    imitate, or None for the published initialisation. `random` operators draw, or have an option to draw, from torch's
    generator in train mode; `takes_global` ones can replace the global pooling of a head, and without
    `takes_window` nothing else. `formula` is of one window x, `paper` its source.
    """

    name: str
    cls: type[nn.Module]
    summary: str
    random: bool = False
    takes_window: bool = True
    takes_global: bool = False
    formula: str = ""
    paper: str = ""

    @cached_property
    def options(self) -> dict[str, inspect.Parameter]:
        """Options a user may set, by name, with resolved annotations and defaults."""
        hints = get_type_hints(self.cls.__init__)
        return {
            p.name: p.replace(annotation=hints.get(p.name, Any))
            for p in self._parameters
            if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL and p.name not in FROM_SITE
        }

    @cached_property
    def wants(self) -> frozenset[str]:
        """Which of `channels`, `stock` and `start` the class takes."""
        return frozenset(p.name for p in self._parameters) & frozenset(FROM_SITE)

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options converted to their annotated types, 1+2+4 to a tuple. Raises InputError for what does not fit."""
        checked = {}
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise InputError(f"operator {self.name!r} has no option {name!r}", f"its options: {known}")
            try:
                wanted = self.options[name].annotation
                items = value.split("+") if isinstance(value, str) and get_origin(wanted) is tuple else value
                checked[name] = TypeAdapter(wanted).validate_python(items)
            except ValidationError as error:
                raise InputError(
                    f"option {name}={value} of operator {self.name!r}: {error.errors()[0]['msg']}",
                    f"{self.name}:{name}={self.options[name].default}",
                ) from None
        return checked

    def make(
        self,
        geometry: Geometry,
        options: Mapping[str, Any],
        *,
        channels: int | None = None,
        stock: str | None = None,
        init: Init = "identity",
    ) -> nn.Module:
        """A module for windows of `geometry` on maps with `channels` channels; it owns at least one tensor.

        `stock` is the layer that it replaces, which init="identity" starts as, as far as the operator can. Raises
        InputError for options that its class refuses.
        """
        start = stock if init == "identity" else None
        site = {"channels": channels, "stock": stock, "start": start}
        checked = self.check(options)
        try:
            module = self.cls(geometry, **checked, **{name: site[name] for name in self.wants})
        except ValueError as error:
            raise InputError(f"operator {self.name!r} at {geometry}: {error}") from None
        _own_a_tensor(module, geometry, checked)
        return module

    @property
    def _parameters(self) -> list[inspect.Parameter]:
        """The parameters of the class after the geometry."""
        return list(inspect.signature(self.cls).parameters.values())[1:]


def _own_a_tensor(module: nn.Module, geometry: Geometry, options: Mapping[str, Any]) -> None:
    """Give an operator without state its settings as a persistent buffer, named after its class.

    Otherwise its checkpoint would have the stock model's keys, and load there silently.
    """
    if not module.state_dict():
        numbers = [float(value) for value in options.values() if isinstance(value, int | float)]
        module.register_buffer(type(module).__name__, torch.tensor([*map(float, geometry.kernel_size), *numbers]))
