"""Operators that draw: their random numbers are their own, so that the layers after them draw what the control's do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def own_draws(model: nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """In the block, what the modules at `paths` draw from torch's generators leaves these as they were before.

    A module draws from where the generators stand when it is called, moved by its place among `paths`.
    """
    handles = []
    for number, path in enumerate(paths, start=1):
        kept: list[Any] = []
        module = model.get_submodule(path)
        handles.append(module.register_forward_pre_hook(_Fork(kept, number), prepend=True))
        handles.append(module.register_forward_hook(_Join(kept), always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Fork:
    def __init__(self, kept: list[Any], number: int) -> None:
        self.kept, self.number = kept, number

    def __call__(self, module: nn.Module, args: Any) -> None:
        device = next((a.device for a in args if isinstance(a, torch.Tensor) and a.device.type == "cuda"), None)
        self.kept.append((torch.get_rng_state(), device, torch.cuda.get_rng_state(device) if device else None))
        torch.manual_seed((torch.initial_seed() + self.number) % 2**63)


class _Join:
    def __init__(self, kept: list[Any]) -> None:
        self.kept = kept

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        state, device, own = self.kept.pop()
        torch.set_rng_state(state)
        if device is not None:
            torch.cuda.set_rng_state(own, device)
