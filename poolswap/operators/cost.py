"""What an operator costs on this machine, as a multiple of torch's own max pooling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import nn

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite
from poolswap.nn.stock import MaxPool
from poolswap.operators.operator import Operator

STEM = Geometry.make(2, 3, 2, 1)
SHAPE = (2, 64, 56, 56)


@dataclass(frozen=True)
class Cost:
    """Shortest time over max pooling's: `forward` in eval mode without gradients, `training` with the backward pass.

    `parameters` is the number of learnable values.
    """

    forward: float
    training: float
    parameters: int


def measure_costs(
    operators: Iterable[Operator],
    *,
    geometry: Geometry = STEM,
    shape: Sequence[int] = SHAPE,
    rounds: int = 10,
    device: torch.device | str = "cpu",
) -> dict[str, Cost]:
    """The cost of each operator with its default options, by name, on noise of `shape` (N, C, *spatial).

    Operators take turns in every round, so that what else the machine does falls on all of them alike.
    """
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.random.fork_rng(devices=[]):
        modules = {op.name: op.make(WindowSite(geometry, channels=shape[1])).to(device) for op in operators}
        stock = MaxPool(WindowSite(geometry))
        forward = _times(lambda module: _forward(module.eval(), x), modules, stock, rounds)
        training = _times(lambda module: _training(module.train(), x), modules, stock, rounds)
    return {
        name: Cost(forward[name], training[name], sum(p.numel() for p in module.parameters()))
        for name, module in modules.items()
    }


def _times(
    run: Callable[[nn.Module], None], modules: dict[str, nn.Module], stock: nn.Module, rounds: int
) -> dict[str, float]:
    """Each module's shortest time over the stock one's: whatever else the machine does only ever adds to a time."""
    shortest = dict.fromkeys(modules, inf)
    base = inf
    for _ in range(rounds + 1):  # the first one warms up, and is never the shortest
        base = min(base, _seconds(run, stock))
        for name, module in modules.items():
            shortest[name] = min(shortest[name], _seconds(run, module))
    return {name: seconds / base for name, seconds in shortest.items()}


def _seconds(run: Callable[[nn.Module], None], module: nn.Module) -> float:
    start = time.perf_counter()
    run(module)
    return time.perf_counter() - start


def _forward(module: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        _wait(module(x))


def _training(module: nn.Module, x: torch.Tensor) -> None:
    leaf = x.detach().requires_grad_()
    module(leaf).sum().backward()
    assert leaf.grad is not None
    _wait(leaf.grad)


def _wait(y: torch.Tensor) -> None:
    if y.is_cuda:
        torch.cuda.synchronize(y.device)
