"""Option groups: a dataclass whose annotated fields are options of every command that has a parameter of its type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer.core import TyperCommand, TyperGroup
from typer.models import ParameterInfo

_METAVARS = {bool: "", int: "N", float: "X", str: "TEXT", Path: "FILE"}


class _Untyped:
    """Help without Python's names of types: every option of ours has a word for its value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, an argument and a flag of Typer's own without `<str>` and `<bool>`."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in found:
            parameter.display_type = lambda ctx: ""
        return found


class Command(_Untyped, TyperCommand):
    """A command of the program."""


class Group(_Untyped, TyperGroup):
    """The program."""


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer sees it: each group's fields stand in its place, in the help panel that its `panel` names.

    The command itself is called with the groups made.
    """
    groups: dict[str, Any] = {}
    seen: list[Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            seen += _options(hints[name])
        else:
            seen.append(option(name, hints[name], parameter.default))

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{option.name: given.pop(option.name) for option in _options(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    return with_parameters(run, seen)


def with_parameters(command: Callable[..., None], parameters: list[Parameter]) -> Callable[..., None]:
    """The command with this signature."""
    seen: Any = command
    seen.__signature__ = inspect.Signature(parameters)
    seen.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _options(group: Any) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if field.init:
            default = Parameter.empty if field.default is MISSING else field.default
            yield option(field.name, hints[field.name], default, group.panel)


def option(name: str, annotation: Any, default: Any, panel: str | None = None) -> Parameter:
    """The parameter with its panel, a word for its value, and brackets in its help that Rich leaves alone."""
    kind, *details = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    for i, info in enumerate(details):
        if isinstance(info, ParameterInfo):
            details[i] = info = copy(info)
            info.rich_help_panel = info.rich_help_panel or panel
            info.metavar = _metavar(kind) if info.metavar is None else info.metavar
            if isinstance(info.show_default, str):  # a default that is not the parameter's own
                info.help, info.show_default = f"{info.help} [default: {info.show_default}]", False
            info.help = literally(info.help or "")
    annotation = Annotated[kind, *details] if details else kind
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def literally(text: str) -> str:
    """The text for Rich's markup: 'poolswap[onnx]' is printed as it stands."""
    return text.replace("[", r"\[")


def _metavar(kind: Any) -> str | None:
    """`N` for int and list[int] and int | None, the choices of a Literal."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    inner = [part for part in get_args(kind) if part is not type(None)]
    return _metavar(inner[0]) if inner else _METAVARS.get(kind)
