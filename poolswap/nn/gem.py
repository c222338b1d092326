"""Generalised mean pooling, over windows and as the head of retrieval networks.

Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolswap.nn.head import HeadPool
from poolswap.nn.site import HeadSite, WindowSite
from poolswap.nn.windows import PlainPool, log_mean_exp, real_elements, windows_of

_EPS = 1e-6
_PUBLISHED = 3.0
_SMALLEST = 1e-4  # of |p|: at 0 the formula has 0/0 where its limit is the geometric mean


class GeMPool(PlainPool):
    """y = (mean_i max(x_i, eps)^p)^(1/p).

    p = 1 is the average of the clamped values, large p their maximum; eps = 1e-6. `p` is a parameter of shape (), or
    with `per_channel` (C,), and a buffer without `learn`. It starts at 3, or in the place of average pooling at 1: the
    same, if no element is negative. Raises ValueError for p = 0.
    """

    paper = "Radenovic et al., TPAMI 2018"

    p: Tensor

    def __init__(
        self, site: WindowSite, *, p: float | None = None, learn: bool = True, per_channel: bool = False
    ) -> None:
        super().__init__(site)
        hold_p(self, site, p, learn, per_channel)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the generalised mean of each window's clamped elements."""
        p = self.p.to(x.dtype)
        p = p.reshape(*p.shape, *(1,) * self.geometry.dims)
        return generalised_mean(windows_of(x, self.geometry), p, real_elements(x, self.geometry))


class GeMHead(HeadPool):
    """y = (mean_i max(x_i, eps)^p)^(1/p).

    `p` as in GeMPool.
    """

    paper = GeMPool.paper

    p: Tensor

    def __init__(
        self, site: HeadSite, *, p: float | None = None, learn: bool = True, per_channel: bool = False
    ) -> None:
        super().__init__(site)
        hold_p(self, site, p, learn, per_channel)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> (N, C), the generalised mean of each map's clamped elements."""
        return generalised_mean(x.flatten(2).movedim(2, 0), self.p.to(x.dtype))


def hold_p(module: nn.Module, site: WindowSite | HeadSite, p: float | None, learn: bool, per_channel: bool) -> None:
    """Give a module its `p`: a parameter, or a persistent buffer."""
    if p == 0:
        raise ValueError("p must not be 0")
    start = (1.0 if learn and site.start == "avg" else _PUBLISHED) if p is None else float(p)
    value = torch.full((site.need_channels(),) if per_channel else (), start)
    if learn:
        module.p = nn.Parameter(value)
    else:
        module.register_buffer("p", value)


def generalised_mean(x: Tensor, p: Tensor, real: Tensor | None = None) -> Tensor:
    """(mean max(x, eps)^p)^(1/p) over the first axis of x, of `real` elements alone; p broadcasts against the rest."""
    p = p + torch.where(p.abs() < _SMALLEST, _SMALLEST - p, 0.0).detach()
    # Logarithms all the way, so that no power overflows. The largest element is a factor that is taken out: the mean is
    # homogeneous, and the factor needs no gradient.
    values = x.clamp(min=_EPS)
    top = values.detach().amax(0)
    return top * (log_mean_exp(p * (values.log() - top.log()), real) / p).exp()
