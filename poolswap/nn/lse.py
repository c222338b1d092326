"""Log-sum-exp pooling with a temperature, over windows and as a head.

Pinheiro, Collobert, "From image-level to pixel-level labeling with convolutional networks", CVPR 2015.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from poolswap.nn.head import HeadPool
from poolswap.nn.site import HeadSite, WindowSite
from poolswap.nn.windows import PlainPool, log_mean_exp, real_elements, windows_of

_NEARLY_AVERAGE = 0.01


class LSEPool(PlainPool):
    """y = log(mean_i exp(r x_i)) / r.

    r -> 0 is the average, large r the maximum. `r` is a buffer of shape (), or with `learn` a parameter `log_r`, which
    in the place of average pooling starts at r = 0.01: off by 0.005 of the window's variance. Raises ValueError unless
    r is positive.
    """

    paper = "Pinheiro and Collobert, CVPR 2015"

    def __init__(self, site: WindowSite, *, r: float | None = None, learn: bool = False) -> None:
        super().__init__(site)
        hold_r(self, site, r, learn)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the log-mean-exp of each window."""
        real = real_elements(x, self.geometry)
        windows = torch.where(real, windows_of(x, self.geometry), torch.finfo(x.dtype).min)
        return soft_maximum(windows, temperature(self, x.dtype), real)


class LSEHead(HeadPool):
    """y = log(mean_i exp(r x_i)) / r.

    `r` as in LSEPool.
    """

    paper = LSEPool.paper

    def __init__(self, site: HeadSite, *, r: float | None = None, learn: bool = False) -> None:
        super().__init__(site)
        hold_r(self, site, r, learn)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> (N, C), the log-mean-exp of each map."""
        return soft_maximum(x.flatten(2).movedim(2, 0), temperature(self, x.dtype))


def hold_r(module: nn.Module, site: WindowSite | HeadSite, r: float | None, learn: bool) -> None:
    """Give a module its `r`: a persistent buffer, or its logarithm as a parameter."""
    if r is not None and not (math.isfinite(r) and r > 0):
        raise ValueError(f"r must be positive, not {r:g}")
    start = (_NEARLY_AVERAGE if learn and site.start == "avg" else 1.0) if r is None else float(r)
    if learn:
        module.log_r = nn.Parameter(torch.tensor(math.log(start)))
    else:
        module.register_buffer("r", torch.tensor(start))


def temperature(module: nn.Module, dtype: torch.dtype) -> Tensor:
    """r as it is now, shape ()."""
    held = module.log_r if "log_r" in module._parameters else module.r
    assert isinstance(held, Tensor)
    return held.to(dtype).exp() if isinstance(held, nn.Parameter) else held.to(dtype)


def soft_maximum(x: Tensor, r: Tensor, real: Tensor | None = None) -> Tensor:
    """log(mean exp(r x)) / r over the first axis of x, of `real` elements alone."""
    top = x.detach().amax(0)  # taken out before r comes in, so that nothing overflows
    return top + log_mean_exp(r * (x - top), real) / r
