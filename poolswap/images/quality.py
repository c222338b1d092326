"""How much of a picture is left: structural similarity and peak signal-to-noise ratio.

Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", TIP 2004.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2


def ssim(x: Tensor, y: Tensor) -> float:
    """Mean structural similarity of two pictures (C, H, W) in 0..1, over windows of 7x7 that lie inside.

    The same as skimage.metrics.structural_similarity(data_range=1, channel_axis=0). Raises ValueError for sizes that
    differ or lie below 7.
    """
    if x.shape != y.shape or min(x.shape[1:]) < _WINDOW:
        raise ValueError(f"two pictures of one size, {_WINDOW} pixels or more a side, not {x.shape} and {y.shape}")
    x, y = x.double(), y.double()
    mx, my, xx, yy, xy = (F.avg_pool2d(moment, _WINDOW, 1) for moment in (x, y, x * x, y * y, x * y))
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    vx, vy, vxy = (unbiased * (square - product) for square, product in ((xx, mx * mx), (yy, my * my), (xy, mx * my)))
    similarity = (2 * mx * my + _C1) * (2 * vxy + _C2) / ((mx * mx + my * my + _C1) * (vx + vy + _C2))
    return float(similarity.mean())


def psnr(x: Tensor, y: Tensor) -> float:
    """-10 log10 of the mean squared difference of two pictures in 0..1, in decibels; inf for equal ones."""
    error = (x.double() - y.double()).square().mean()
    return float(-10 * error.log10())
