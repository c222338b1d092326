"""Detail-preserving pooling.

Saeedan, Weber, Goesele, Roth, "Detail-preserving pooling in deep networks", CVPR 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, binomial, low_pass, real_elements, window_mean, windows_of

_EPS = 1e-3
_SMALL_LAMBDA = 1e-3


class DPPool(PlainPool):
    """y = sum_i w_i x_i / sum_i w_i, w_i = alpha + rho(x_i - xbar)^lambda.

    rho(d) = sqrt(d^2 + eps^2), or with `asymmetric` of max(d, 0), eps = 0.001; xbar is the window's mean, blurred over
    the output's neighbours with a binomial filter of 3. `log_alpha` and `log_lambda` are parameters of shape (C,),
    drawn from [0, 1) as published; a start as average pooling has lambda = 0.001, and is it to within a percent (there
    is no start as max pooling).
    """

    paper = "Saeedan et al., CVPR 2018"

    kernel: Tensor

    def __init__(self, site: WindowSite, *, asymmetric: bool = False) -> None:
        super().__init__(site)
        self.asymmetric = asymmetric
        self.neighbours = Geometry.make(self.geometry.dims, 3, 1, 1)
        channels = site.need_channels()
        self.log_alpha = nn.Parameter(torch.rand(channels))
        self.log_lambda = nn.Parameter(torch.rand(channels))
        if site.start == "avg":
            nn.init.zeros_(self.log_alpha)
            nn.init.constant_(self.log_lambda, math.log(_SMALL_LAMBDA))
        self.register_buffer("kernel", binomial(self.neighbours.kernel_size), persistent=False)

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the weighted mean of each window."""
        ones = (1,) * self.geometry.dims
        centre = low_pass(window_mean(x, self.geometry), self.kernel, self.neighbours)
        windows = windows_of(x, self.geometry)
        distance = windows - centre
        if self.asymmetric:
            distance = distance.relu()
        # The weights stay logarithms until the softmax: no power of a large distance is ever formed.
        log_rho = (distance.square() + _EPS**2).log() / 2
        log_alpha = self.log_alpha.to(x.dtype).reshape(-1, *ones)
        power = self.log_lambda.to(x.dtype).exp().reshape(-1, *ones)
        # log(alpha + rho^lambda), as runtimes without logaddexp can compute it
        logits = log_alpha + F.softplus(power * log_rho - log_alpha, threshold=40)
        logits = torch.where(real_elements(x, self.geometry), logits, torch.finfo(x.dtype).min)
        return (logits.softmax(0) * windows).sum(0)
