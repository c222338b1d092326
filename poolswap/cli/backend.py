"""`--backend`: which implementation of SoftPool a command computes with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import typer


class BackendName(StrEnum):
    """`--backend`."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"
    REFERENCE = "reference"


_Option = Annotated[
    BackendName | None,
    typer.Option("--backend", help="Implementation of SoftPool, or an error. [auto, or POOLSWAP_BACKEND]"),
]


@contextmanager
def using(backend: BackendName | None) -> Iterator[None]:
    """The backend for the length of a with block; None leaves the choice as it is, and imports nothing."""
    if backend is None:
        yield
        return
    from poolswap.ops.backend import use_backend

    with use_backend(backend.value):
        yield


def with_backend_option(command: Callable[..., None]) -> Callable[..., None]:
    """The command with `backend` among the parameters that Typer sees."""
    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Option)
    seen: Any = command
    seen.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    seen.__annotations__ = {**command.__annotations__, "backend": _Option}
    return command
