"""Gated max-average pooling: the window itself decides between its maximum and its mean.

Lee, Gallagher, Tu, "Generalizing pooling functions in convolutional neural networks: mixed, gated, and tree",
AISTATS 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, window_dot, window_max, window_mean


class GatedPool(PlainPool):
    """y = s max_i x_i + (1 - s) mean_i x_i, s = sigmoid(<omega, x>).

    `omega` is a parameter of shape (*kernel_size), or with `per_channel` (C, *kernel_size). It starts at zero, halfway
    between max and average; without a bias no omega gives either of them alone.
    """

    paper = "Lee et al., AISTATS 2016"

    def __init__(self, site: WindowSite, *, per_channel: bool = False) -> None:
        super().__init__(site)
        leading = (site.need_channels(),) if per_channel else ()
        self.omega = nn.Parameter(torch.zeros(*leading, *self.kernel_size))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the gated mixture of each window's maximum and mean."""
        gate = window_dot(x, self.omega, self.geometry).to(x.dtype).sigmoid()
        return torch.lerp(window_mean(x, self.geometry), window_max(x, self.geometry), gate)
