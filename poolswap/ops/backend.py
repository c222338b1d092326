"""Which implementation of SoftPool runs: the one place that decides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

from torch import Tensor

from poolswap.ops.windows import Windows

Forward = Callable[[Tensor, Tensor, Windows], Tensor]  # (x, beta, windows) -> y
Backward = Callable[[Tensor, Tensor, Tensor, Windows], Tensor]  # (grad, x, beta, windows) -> dx
Gradients = Callable[[Tensor, Tensor, Tensor, Windows], tuple[Tensor, Tensor]]  # .. -> dx, dbeta

_module = cache(import_module)  # its own look-up takes half a microsecond of every call

ENVIRONMENT_VARIABLE = "POOLSWAP_BACKEND"


class BackendError(RuntimeError):
    """A backend that was asked for by name cannot run."""


class Implementation(NamedTuple):
    """What a backend computes: `reference` says how."""

    forward: Forward
    backward: Backward
    gradients: Gradients


@dataclass(frozen=True)
class Backend:
    """One implementation: a module with what `Implementation` holds and, unless it runs everywhere, `unavailable`.

    `unavailable()` says in one line why the backend cannot run on this machine, or returns None.
    """

    name: str
    module: str
    device: str | None  # the device type it is for; None is any

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine, or None."""
        probe: Callable[[], str | None] | None = getattr(_module(self.module), "unavailable", None)
        return probe() if probe else None

    def implementation(self) -> Implementation:
        """Its functions."""
        module = _module(self.module)
        return Implementation(module.forward, module.backward, module.gradients)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("reference", "poolswap.ops.reference", device=None),
        Backend("cuda", "poolswap.ops.triton", device="cuda"),
        Backend("cpu", "poolswap.ops.cpu", device="cpu"),
    )
}

_DEFAULT = os.environ.get(ENVIRONMENT_VARIABLE, "auto")
_requested = ContextVar("requested backend", default=_DEFAULT)


def requested() -> str:
    """`auto` or a backend's name: what this thread or task asked for, or else the environment variable."""
    return _requested.get()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """The backend, `auto` or a name from BACKENDS, of every call in a with block and of their gradients.

    It holds for the thread or task that entered it. Raises BackendError if the name is unknown.
    """
    if name != "auto" and name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


def current(device_type: str) -> Backend:
    """The backend that runs on this device type now, by what was requested. Raises BackendError."""
    return select(device_type, requested())


def implementation(x: Tensor) -> Implementation:
    """The functions that serve this tensor, by what was requested."""
    return _implementation("cpu" if x.is_cpu else x.device.type, _requested.get())


@cache
def _implementation(device_type: str, name: str) -> Implementation:
    return select(device_type, name).implementation()


@cache
def select(device_type: str, name: str = "auto") -> Backend:
    """The backend that runs on this device type.

    `auto` takes the device's own backend where it can run and the reference everywhere else. A name is an order:
    where it cannot be met, BackendError says why.
    """
    if name == "auto":
        own = (b for b in BACKENDS.values() if b.device == device_type and b.unavailable() is None)
        return next(own, BACKENDS["reference"])
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    if backend.device not in (None, device_type):
        raise BackendError(f"backend {name!r} cannot run on a {device_type} tensor; use auto or reference")
    if reason := backend.unavailable():
        raise BackendError(f"backend {name!r} cannot run here: {reason}; use auto or reference")
    return backend
