"""Local importance-based pooling.

Gao, Wang, Wu, "LIP: local importance-based pooling", ICCV 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, window_mean

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LARGEST = 12.0
_NORM_EPS = 1e-5


class LIPool(PlainPool):
    """y = sum_i x_i e^G_i / sum_i e^G_i, G = 12 sigmoid(norm(conv3(x))).

    conv3 is over all channels, norm an InstanceNorm. Parameters: `weight` (C, C, 3, ...), zero at the start, which
    makes it average pooling without padding; `scale` and `shift` (C,) of the normalisation.
    """

    paper = "Gao et al., ICCV 2019"

    def __init__(self, site: WindowSite) -> None:
        super().__init__(site)
        channels = site.need_channels()
        self.weight = nn.Parameter(torch.zeros(channels, channels, *(3,) * self.geometry.dims))
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the mean of each window under its learnt importance."""
        importance = self.importance(x)
        return window_mean(x * importance, self.geometry) / window_mean(importance, self.geometry)

    def importance(self, x: Tensor) -> Tensor:
        """e^(G - 6) of x (N, C, *spatial), same shape: the constant cancels, and centres what remains."""
        logits = _CONV[self.geometry.dims](x, self.weight.to(x.dtype), padding=1).to(x.dtype)
        # A norm group for each channel is InstanceNorm, which itself refuses maps of one element.
        scale, shift = self.scale.to(x.dtype), self.shift.to(x.dtype)
        normed = torch.group_norm(logits, x.shape[1], scale, shift, _NORM_EPS)
        return (_LARGEST * (normed.sigmoid() - 0.5)).exp()
