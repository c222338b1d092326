"""Pooling modules: SoftPool and what it is compared with, each a drop-in for torch's window pools."""

from poolswap.nn.base import WindowPool
from poolswap.nn.registry import OPERATORS, Operator, all_operators, load_operator, parse_operator, split_operators
from poolswap.nn.soft import AdaptiveSoftPool, GlobalSoftPool, SoftPool, SoftPool1d, SoftPool2d, SoftPool3d

__all__ = [
    "OPERATORS",
    "AdaptiveSoftPool",
    "GlobalSoftPool",
    "Operator",
    "SoftPool",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "WindowPool",
    "all_operators",
    "load_operator",
    "parse_operator",
    "split_operators",
]
