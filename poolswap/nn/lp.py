"""Power-average pooling.

Gulcehre, Cho, Pascanu, Bengio, "Learned-norm pooling for deep feedforward and recurrent neural networks", ECML 2014;
Bruna Estrach, Szlam, LeCun, "Signal recovery from pooling representations", ICML 2014.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, window_count, windows_of


class LpPool(PlainPool):
    """y = (mean_i |x_i|^p)^(1/p).

    p = 1 is the mean of magnitudes, large p their maximum. `p` is a buffer of shape (), or with `learn` a parameter
    `raw_p` of shape () with p = 1 + softplus(raw_p). Raises ValueError for p < 1, or p <= 1 with `learn`.
    """

    paper = "Gulcehre et al., ECML 2014"

    p: Tensor

    def __init__(self, site: WindowSite, *, p: float = 2.0, learn: bool = False) -> None:
        super().__init__(site)
        if not math.isfinite(p) or p < 1 or (learn and p == 1):
            raise ValueError(f"p must be finite and {'above 1 to be learnt' if learn else 'at least 1'}, not {p:g}")
        self.learn = learn
        if learn:
            # softplus's inverse, in the form that does not overflow for large p.
            self.raw_p = nn.Parameter(torch.tensor(p - 1 + math.log(-math.expm1(1 - p))))
        else:
            self.register_buffer("p", torch.tensor(float(p)))

    def exponent(self, dtype: torch.dtype) -> Tensor:
        """p as it is now, shape ()."""
        return 1 + F.softplus(self.raw_p.to(dtype)) if self.learn else self.p.to(dtype)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the power average of each window's magnitudes."""
        p = self.exponent(x.dtype)
        # Padding is 0 and adds nothing to the sum. The largest magnitude is taken out, so that no power overflows; as a
        # homogeneous factor it needs no gradient. A window of zeros becomes one of ones, times 0.
        magnitudes = windows_of(x, self.geometry).abs()
        top = magnitudes.detach().amax(0)
        ratios = torch.where(top > 0, magnitudes / torch.where(top > 0, top, 1.0), 1.0)
        count = window_count(x, self.geometry)
        total = torch.where(top > 0, (ratios**p).sum(0), count)
        return top * (total / count) ** (1 / p)
