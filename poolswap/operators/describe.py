"""An operator in words, for tables: what it replaces, and its options as they are typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any, Literal, get_args, get_origin

from poolswap.operators.operator import Operator


def replaces(operator: Operator) -> Sequence[str]:
    """Of "windows", "heads" and "regions", what the operator takes the place of."""
    kinds = {"windows": operator.window, "heads": operator.head, "regions": operator.region}
    return tuple(kind for kind, form in kinds.items() if form is not None)


def option_types(operator: Operator) -> dict[str, dict[str, Any]]:
    """{"type": "float", "default": 2.0} of each option."""
    return {
        name: {"type": _type(p.annotation), "default": None if p.default is p.empty else p.default}
        for name, p in operator.options.items()
    }


def usage(operator: Operator) -> str:
    """`p=2.0, learn=false`, as they are typed after the colon; without a default, the type."""
    return ", ".join(f"{name}={_default(p)}" for name, p in operator.options.items())


def typed(name: str, options: Mapping[str, Any]) -> str:
    """`soft:beta=2.0,learn=true`: an operator with its options as `parse_operator` reads them."""
    return name + ":" * bool(options) + ",".join(f"{key}={_spelled(value)}" for key, value in options.items())


def _spelled(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(_spelled, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _default(parameter: Parameter) -> str:
    default = parameter.default
    if default in (parameter.empty, None):
        return _type(parameter.annotation)
    words = [_type(one) for one in get_args(parameter.annotation) if get_origin(one) is Literal]
    return "|".join([_spelled(default), *words])


def _type(annotation: Any) -> str:
    """`float`, `int`, `max|avg`: what the option takes."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if arguments := get_args(annotation):
        return "|".join(_type(argument) for argument in arguments if argument is not type(None))
    return getattr(annotation, "__name__", str(annotation))
