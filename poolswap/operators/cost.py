"""What an operator costs on this machine, as a multiple of the stock layer that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from poolswap.errors import InputError, first_line
from poolswap.geometry import Geometry
from poolswap.measure import interleave
from poolswap.nn.site import HeadSite, WindowSite
from poolswap.nn.stock import MaxPool
from poolswap.operators.operator import Operator

_STOCK = "stock"


@dataclass(frozen=True)
class Place:
    """Where costs are measured: a site, the layer that stands there, and noise of `shape` (N, C, *spatial)."""

    site: WindowSite | HeadSite
    stock: nn.Module
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Windows or map, in short form."""
        where = str(self.site.geometry) if isinstance(self.site, WindowSite) else "the whole map"
        return f"{where} on {'x'.join(map(str, self.shape))}"


_WINDOWS = WindowSite(Geometry.make(2, 3, 2, 1), channels=64)
STEM = Place(_WINDOWS, MaxPool(_WINDOWS), (2, 64, 56, 56))
HEAD = Place(HeadSite(channels=512), nn.AdaptiveAvgPool2d(1), (8, 512, 7, 7))


@dataclass(frozen=True)
class Cost:
    """Time over the stock layer's, the median of rounds in which all take turns.

    `forward` is in eval mode without gradients, `training` with the backward pass.
    `parameters` is the number of learnable values.
    """

    forward: float
    training: float
    parameters: int


def measure_costs(
    operators: Iterable[Operator],
    place: Place,
    *,
    rounds: int = 10,
    device: torch.device | str = "cpu",
) -> dict[str, Cost | InputError]:
    """The cost of each operator with its default options at the place, by name.

    One that cannot be made or run, which may be somebody else's, has its error in the place of a cost.
    """
    found: dict[str, Cost | InputError] = {}
    x = torch.randn(*place.shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.random.fork_rng(devices=[]):
        modules = {}
        for operator in operators:
            try:
                module = operator.make(place.site).to(device)
                _training(x, module)
            except Exception as error:
                problem = f"{type(error).__name__}: {first_line(error)}"
                found[operator.name] = InputError(f"operator {operator.name!r} does not work: {problem}")
            else:
                modules[operator.name] = module
        contestants = {_STOCK: deepcopy(place.stock).to(device), **modules}
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
