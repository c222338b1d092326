"""The one table of pooling operators: what `--to` takes, with each operator's options read off its class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.nn.base import WindowPool
from poolswap.nn.soft import SoftPool

# What the site gives an operator, not its user: number of channels, and the stock layer to start from.
FROM_SITE = ("channels", "start")


@dataclass(frozen=True)
class Operator:
    """One pooling operator: its name, class, and one line on what it computes.

    The class takes a Geometry, then keyword-only options. Two names are filled in from the site where the class has
    them: `channels`, and `start`, the stock layer ("max" or "avg") that its initial parameters imitate, or None for the
    published initialisation. `random` operators draw from torch's generator in train mode; `takes_global` ones can also
    replace the global pooling of a head.
    """

    name: str
    cls: type[WindowPool]
    summary: str
    random: bool = False
    takes_global: bool = False

    @cached_property
    def options(self) -> dict[str, inspect.Parameter]:
        """Options a user may set, by name, with resolved annotations and defaults."""
        parameters = inspect.signature(self.cls.__init__).parameters.values()
        hints = get_type_hints(self.cls.__init__)
        return {
            p.name: p.replace(annotation=hints.get(p.name, Any))
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.name not in FROM_SITE
        }

    @cached_property
    def wants(self) -> frozenset[str]:
        """Which of `channels` and `start` the class takes."""
        return frozenset(inspect.signature(self.cls.__init__).parameters) & frozenset(FROM_SITE)

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options converted to their annotated types. Raises InputError for an unknown name or a bad value."""
        checked = {}
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise InputError(f"operator {self.name!r} has no option {name!r}", f"its options: {known}")
            try:
                checked[name] = TypeAdapter(self.options[name].annotation).validate_python(value)
            except ValidationError as error:
                raise InputError(
                    f"option {name}={value} of operator {self.name!r}: {error.errors()[0]['msg']}",
                    f"{self.name}:{name}={self.options[name].default}",
                ) from None
        return checked

    def make(
        self, geometry: Geometry, options: Mapping[str, Any], *, channels: int | None = None, start: str | None = None
    ) -> WindowPool:
        """A module for windows of `geometry` on maps with `channels` channels."""
        site = {"channels": channels, "start": start}
        filled = {name: site[name] for name in self.wants}
        try:
            return self.cls(geometry, **self.check(options), **filled)
        except ValueError as error:
            raise InputError(f"operator {self.name!r} at {geometry}: {error}") from None


_TABLE = (Operator("soft", SoftPool, "sum_i softmax(beta x)_i x_i over the window", takes_global=True),)
OPERATORS = {operator.name: operator for operator in _TABLE}


def find_operator(name: str) -> Operator:
    """The operator of this name. Raises InputError with the closest names."""
    if name not in OPERATORS:
        close = get_close_matches(name, OPERATORS, n=3) or list(OPERATORS)
        raise InputError(f"unknown pooling operator {name!r}", f"try one of: {', '.join(close)}")
    return OPERATORS[name]


def parse_operator(text: str) -> tuple[Operator, dict[str, Any]]:
    """`soft`, `soft:beta=2`, `lp:p=3,learn=true` -> (operator, checked options). Raises InputError."""
    name, _, tail = text.partition(":")
    operator = find_operator(name)
    options = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{text!r}: option {item!r} has no value", f"write {name}:{key}=VALUE")
        options[key.strip()] = value.strip()
    return operator, operator.check(options)
