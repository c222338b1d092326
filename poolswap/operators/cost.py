"""What an operator costs on this machine, as a multiple of torch's own max pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from poolswap.errors import InputError, first_line
from poolswap.geometry import Geometry
from poolswap.measure import interleave
from poolswap.nn.site import WindowSite
from poolswap.nn.stock import MaxPool
from poolswap.operators.operator import Operator

STEM = Geometry.make(2, 3, 2, 1)
SHAPE = (2, 64, 56, 56)
_STOCK = "torch.nn.MaxPool2d"


@dataclass(frozen=True)
class Cost:
    """Time over max pooling's, the median of rounds in which all take turns.

    `forward` is in eval mode without gradients, `training` with the backward pass.
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
) -> dict[str, Cost | InputError]:
    """The cost of each operator with its default options, by name, on noise of `shape` (N, C, *spatial).

    One that cannot be made or run, which may be somebody else's, has its error in the place of a cost.
    """
    found: dict[str, Cost | InputError] = {}
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.random.fork_rng(devices=[]):
        modules = {}
        for operator in operators:
            try:
                module = operator.make(WindowSite(geometry, channels=shape[1])).to(device)
                _training(x, module)
            except Exception as error:
                problem = f"{type(error).__name__}: {first_line(error)}"
                found[operator.name] = InputError(f"operator {operator.name!r} does not work: {problem}")
            else:
                modules[operator.name] = module
        contestants = {_STOCK: MaxPool(WindowSite(geometry)), **modules}
        forward = _ratios(partial(_forward, x), contestants, rounds, device)
        training = _ratios(partial(_training, x), contestants, rounds, device)
    for name, module in modules.items():
        found[name] = Cost(forward[name], training[name], sum(p.numel() for p in module.parameters()))
    return found


def _ratios(
    run: Callable[[nn.Module], None], modules: Mapping[str, nn.Module], rounds: int, device: torch.device | str
) -> dict[str, float]:
    """Each module's time over the stock one's."""
    timed = interleave({name: partial(run, module) for name, module in modules.items()}, rounds, device=device)
    return {name: timed.ratio(name, _STOCK).median for name in modules}


def _forward(x: torch.Tensor, module: nn.Module) -> None:
    with torch.no_grad():
        module.eval()(x)


def _training(x: torch.Tensor, module: nn.Module) -> None:
    module.train()(x.detach().requires_grad_()).sum().backward()
