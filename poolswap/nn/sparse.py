"""SoftPool with sparse weights: small elements weigh exactly nothing.

Martins, Astudillo, "From softmax to sparsemax", ICML 2016; Peters, Niculae, Martins, "Sparse sequence-to-sequence
models", ACL 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poolswap.nn.beta import Beta, beta_repr, hold_beta
from poolswap.nn.head import HeadPool
from poolswap.nn.site import HeadSite, WindowSite
from poolswap.nn.windows import PlainPool, real_elements, windows_of


def sparsemax(z: Tensor) -> Tensor:
    """The w >= 0 of sum 1 nearest to z over the first axis; z has its maximum at 0."""
    ordered, counts = _ordered(z)
    support = (ordered.cumsum(0) - counts * ordered < 1).sum(0)
    inside = _largest(z, ordered, support)
    tau = ((z * inside).sum(0) - 1) / inside.sum(0)
    return (z - tau).relu()


def entmax15(z: Tensor) -> Tensor:
    """As sparsemax, with weights w that maximise w z plus their 1.5-Tsallis entropy: squares of half the distance."""
    z = z / 2
    ordered, counts = _ordered(z)
    squares = ordered.square().cumsum(0) - 2 * ordered * ordered.cumsum(0) + counts * ordered.square()
    inside = _largest(z, ordered, (squares < 1).sum(0))
    count = inside.sum(0)
    mean = (z * inside).sum(0) / count
    spread = ((z - mean).square() * inside).sum(0)
    tau = mean - ((1 - spread).clamp(min=0) / count).sqrt()
    return (z - tau).relu().square()


def sparse_pool(x: Tensor, beta: Tensor, weights: Callable[[Tensor], Tensor], real: Tensor | None = None) -> Tensor:
    """sum_i w_i x_i over the first axis of x, of `real` elements alone, w the weights of beta x."""
    z = beta * x
    top = (z if real is None else torch.where(real, z, torch.finfo(x.dtype).min)).detach().amax(0)
    z = (z - top).clamp(min=-2)  # no element that is 2 below the largest has a weight
    w = weights(z if real is None else torch.where(real, z, -2.0))
    return torch.where(w == 0, 0, w * x).sum(0)  # of -inf there is nothing


class SparsemaxPool(PlainPool):
    """y = sum_i sparsemax(beta x)_i x_i.

    `beta` as in SoftPool: 0 is average pooling, large is max pooling. The gradient goes through the elements that have
    a weight.
    """

    paper = "Martins and Astudillo, ICML 2016"
    beta: Tensor
    weights = staticmethod(sparsemax)

    def __init__(self, site: WindowSite, *, beta: Beta = 1.0, start: float | None = None) -> None:
        super().__init__(site)
        self.start = hold_beta(self, site, beta, start)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the weighted mean of each window."""
        real = real_elements(x, self.geometry)
        beta = self.beta.to(x.dtype)
        beta = beta.reshape(*beta.shape, *(1,) * self.geometry.dims)
        return sparse_pool(windows_of(x, self.geometry), beta, self.weights, real)

    def extra_repr(self) -> str:
        """Geometry and beta."""
        return f"{super().extra_repr()}, {beta_repr(self)}"


class Entmax15Pool(SparsemaxPool):
    """y = sum_i entmax15(beta x)_i x_i.

    Between SoftPool and SparsemaxPool; `beta` as there.
    """

    paper = "Peters et al., ACL 2019"
    weights = staticmethod(entmax15)


class SparsemaxHead(HeadPool):
    """y = sum_i sparsemax(beta x)_i x_i.

    As SparsemaxPool.
    """

    paper = SparsemaxPool.paper
    beta: Tensor
    weights = staticmethod(sparsemax)

    def __init__(self, site: HeadSite, *, beta: Beta = 1.0, start: float | None = None) -> None:
        super().__init__(site)
        self.start = hold_beta(self, site, beta, start)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> (N, C), the weighted mean of each map."""
        return sparse_pool(x.flatten(2).movedim(2, 0), self.beta.to(x.dtype), self.weights)


class Entmax15Head(SparsemaxHead):
    """y = sum_i entmax15(beta x)_i x_i.

    As Entmax15Pool.
    """

    paper = Entmax15Pool.paper
    weights = staticmethod(entmax15)


def _ordered(z: Tensor) -> tuple[Tensor, Tensor]:
    """(z from the largest element to the smallest, how many there are up to each)."""
    ordered = z.detach().sort(0, descending=True).values
    counts = torch.ones_like(ordered).cumsum(0)
    return ordered, counts


def _largest(z: Tensor, ordered: Tensor, count: Tensor) -> Tensor:
    """1 for the `count` largest elements of z, 0 for the others."""
    least = ordered.gather(0, (count - 1).clamp(min=0).unsqueeze(0)).squeeze(0)  # of NaN none is counted
    return (z.detach() >= least).to(z.dtype)
