"""`--backend`: which implementation of SoftPool a command computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import typer

BackendName = Literal["auto", "cuda", "cpu", "reference"]

BackendOption = Annotated[
    BackendName | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="SoftPool's implementation: cuda, cpu or reference.",
        show_default="auto, or POOLSWAP_BACKEND",
    ),
]


@contextmanager
def using(backend: BackendName | None) -> Iterator[None]:
    """The backend for the length of a with block; None leaves the choice as it is, and imports nothing."""
    if backend is None:
        yield
        return
    from poolswap.ops.backend import use_backend

    with use_backend(backend):
        yield
