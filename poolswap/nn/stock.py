"""Torch's own max and average pooling over a Geometry, so that they can be a replacement as any other operator."""

from __future__ import annotations

from torch import Tensor

from poolswap.functional import check_input
from poolswap.nn.base import WindowPool
from poolswap.nn.windows import PlainPool, window_max, window_mean


class MaxPool(WindowPool):
    """y = max_i x_i.

    torch.nn.MaxPoolNd, with TensorFlow's SAME padding where the geometry asks for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) or (C, *spatial), floating point -> each window's maximum."""
        check_input(x, self.geometry.dims)
        return window_max(x, self.geometry)


class AvgPool(PlainPool):
    """y = mean_i x_i.

    torch.nn.AvgPoolNd with count_include_pad=False, also dilated or SAME. torch's default counts the zeros of the
    padding: a stock layer with padding is equalled away from the border only.
    """

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> each window's mean."""
        return window_mean(x, self.geometry)
