"""From a name to its operator: built in, from an installed package's entry point, or from a file of the user's own."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import nn

from poolswap.errors import InputError, closest, first_line
from poolswap.models.userfile import load_object, split_reference
from poolswap.nn.head import HeadPool
from poolswap.operators.builtin import OPERATORS
from poolswap.operators.operator import Form, Operator

GROUP = "poolswap.operators"
_FILE = re.compile(r"(?P<name>.+\.py:\w+)(:(?P<tail>.*))?")


def find_operator(name: str) -> Operator:
    """The operator of this name, built in or from an installed package.

    Runs no file: a name in a plan or a checkpoint is data. Raises InputError, with the closest names.
    """
    if name in OPERATORS:
        return OPERATORS[name]
    if split_reference(name) is not None:
        raise InputError(
            f"{name} is an operator of your own file, which has not been run",
            f"name it yourself: to='{name}', beside a plan too; for a checkpoint, trust_code=True",
        )
    installed = _entry_points()
    if name in installed:
        return _loaded(installed[name])
    known = [*OPERATORS, *installed]
    raise InputError(f"unknown pooling operator {name!r}", f"try one of: {', '.join(closest(name, known) or known)}")


def load_operator(name: str) -> Operator:
    """The operator of this name; path/to/pool.py:MyPool runs that file, unless it ran as it is. Raises InputError."""
    split = split_reference(name)
    if name in OPERATORS or split is None:
        return find_operator(name)
    path = split[0]
    return _of_file(name, path.stat().st_mtime_ns if path.is_file() else 0)


def installed_operators() -> dict[str, Operator | InputError]:
    """What installed packages offer, by name: an operator, or why it is none."""
    found: dict[str, Operator | InputError] = {}
    for name, point in _entry_points().items():
        try:
            if name in OPERATORS:
                raise InputError(f"operator {name!r} of {_package(point)} has the name of a built-in one")
            found[name] = _loaded(point)
        except InputError as error:
            found[name] = error
    return found


def all_operators() -> dict[str, Operator]:
    """Every operator by name: the built-in ones, then those of installed packages that can be loaded."""
    installed = {name: found for name, found in installed_operators().items() if isinstance(found, Operator)}
    return {**OPERATORS, **installed}


def parse_operator(text: str) -> tuple[Operator, dict[str, Any]]:
    """`soft`, `lp:p=3,learn=true`, `path/to/pool.py:MyPool:size=3` -> (operator, checked options). Raises InputError.

    The text is what a user typed, so a file that it names is run.
    """
    file = _FILE.fullmatch(text)
    name, _, tail = (file["name"], ":", file["tail"] or "") if file else text.partition(":")
    operator = load_operator(name)
    options = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{text!r}: option {item!r} has no value", f"write {name}:{key}=VALUE")
        options[key.strip()] = value.strip()
    return operator, operator.check(options)


def split_operators(text: str) -> list[str]:
    """`max,lp:p=3,learn=true,soft` -> its operators, as `parse_operator` takes them; `all` is every one for windows."""
    parts: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        is_option = "=" in part and ":" not in part.partition("=")[0]
        if is_option and parts:
            parts[-1] += f",{part}"
        elif part == "all":
            parts += _for_windows()
        else:
            parts.append(part)
    return parts


def _for_windows() -> list[str]:
    """The operators for windows; of names of one form the first."""
    first: dict[Form, str] = {}
    for name, operator in all_operators().items():
        if operator.window is not None:
            first.setdefault(operator.window, name)
    return list(first.values())


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> Operator:
    try:
        made = point.load()
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"operator {point.name!r} of {_package(point)} cannot be loaded: {problem}") from error
    return _as_operator(point.name, made)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


@lru_cache
def _of_file(name: str, mtime_ns: int) -> Operator:
    """Once for every state of the file: a class that was made twice could not be pickled."""
    return _as_operator(name, load_object(name))


def _as_operator(name: str, made: Any) -> Operator:
    """An Operator under the name it is found by; of a module class, for heads if it is a HeadPool, else for windows."""
    if isinstance(made, Operator):
        return replace(made, name=name)
    if isinstance(made, type) and issubclass(made, HeadPool):
        return Operator(name, head=made)
    if isinstance(made, type) and issubclass(made, nn.Module):
        return Operator(name, window=made)
    raise InputError(
        f"{name} is not a pooling module class", "write class MyPool(poolswap.nn.WindowPool) with a forward"
    )
