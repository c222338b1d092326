"""The exponential poolings of AdaPool; its third, eM, is SoftPool.

Stergiou, Poppe, "AdaPool: exponential adaptive pooling for information-retaining downsampling", 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolswap.functional import soft_pool_windows
from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, real_elements, window_mean, windows_of


class EDSCWPool(PlainPool):
    """y = sum_i w_i x_i, w = softmax(2 |x xbar| / (x^2 + xbar^2)).

    xbar is the window's mean, and what the softmax is of is called DSC. An element that is 0 in a window with mean 0
    has DSC 0.
    """

    paper = "Stergiou and Poppe, 2021"

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the mean of each window under its similarity to its own mean."""
        return edscw_pool(x, self.geometry)


class AdaPool(PlainPool):
    """y = b edscw(x) + (1 - b) soft(x).

    b = sigmoid(logit); `logit` is a parameter of shape () that starts at b = 1/2: one for the layer, where the
    published code has one for each position and so fixes the resolution.
    """

    paper = "Stergiou and Poppe, 2021"

    def __init__(self, site: WindowSite) -> None:
        super().__init__(site)
        self.logit = nn.Parameter(torch.zeros(()))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the mixture of the two exponential poolings."""
        soft = soft_pool_windows(x, self.geometry)
        return torch.lerp(soft, edscw_pool(x, self.geometry), self.logit.to(x.dtype).sigmoid())


def edscw_pool(x: Tensor, geometry: Geometry) -> Tensor:
    """eDSCW pooling of x (N, C, *spatial) over the windows of `geometry`."""
    windows, real = windows_of(x, geometry), real_elements(x, geometry)
    mean = window_mean(x, geometry)
    # The similarity is that of every multiple of the window; divided by its largest magnitude, no square overflows.
    top = windows.detach().abs().amax(0)
    top = torch.where(top > 0, top, 1.0)
    near, far = windows / top, mean / top
    squares = near.square() + far.square()
    similarity = torch.where(squares > 0, 2 * (near * far).abs() / torch.where(squares > 0, squares, 1.0), 0.0)
    similarity = torch.where(real, similarity, torch.finfo(x.dtype).min)
    return (similarity.softmax(0) * windows).sum(0)
