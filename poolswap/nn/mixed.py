"""Mixtures of max and average pooling: one learnt proportion, or a random choice.

Lee, Gallagher, Tu, "Generalizing pooling functions in convolutional neural networks: mixed, gated, and tree",
AISTATS 2016; Yu, Wang, Chen, Wei, "Mixed pooling for convolutional neural networks", RSKT 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, window_max, window_mean

# Where the mixture starts as one of its parts: off by sigmoid(-7) = 0.0009 of their difference, and not yet flat.
_START = {"max": 7.0, "avg": -7.0, None: 0.0}


class MixedPool(PlainPool):
    """y = a max_i x_i + (1 - a) mean_i x_i.

    a = sigmoid(logit); `logit` is a parameter of shape (), or with `per_channel` (C,); it starts at a = 1/2, or as the
    stock layer to within 0.0009 of the difference between max and average. With `random` there is no parameter: each
    forward in train mode draws max or average (for every channel, with `per_channel`), and eval mode gives their mean.
    """

    paper = "Lee et al., AISTATS 2016; Yu et al., RSKT 2014"
    draws = True

    def __init__(self, site: WindowSite, *, per_channel: bool = False, random: bool = False) -> None:
        super().__init__(site)
        self.random = random
        self.shape = (site.need_channels(),) if per_channel else ()
        if not random:
            self.logit = nn.Parameter(torch.full(self.shape, _START[site.start]))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the mixture of each window's maximum and mean."""
        largest, mean = window_max(x, self.geometry), window_mean(x, self.geometry)
        ones = (1,) * self.geometry.dims
        if self.random and self.training:
            takes_max = torch.rand(self.shape, device=x.device) < 0.5
            return torch.where(takes_max.reshape(*self.shape, *ones), largest, mean)
        if self.random:
            return largest / 2 + mean / 2
        share = self.logit.to(x.dtype).sigmoid().reshape(*self.shape, *ones)
        return torch.lerp(mean, largest, share)
