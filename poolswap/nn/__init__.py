"""Pooling modules: SoftPool and what it is compared with, each a drop-in for torch's own pools."""

from poolswap.nn.base import WindowPool
from poolswap.nn.head import HeadPool
from poolswap.nn.site import HeadSite, WindowSite
from poolswap.nn.soft import AdaptiveSoftPool, GlobalSoftPool, SoftPool, SoftPool1d, SoftPool2d, SoftPool3d

__all__ = [
    "AdaptiveSoftPool",
    "GlobalSoftPool",
    "HeadPool",
    "HeadSite",
    "SoftPool",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "WindowPool",
    "WindowSite",
]
