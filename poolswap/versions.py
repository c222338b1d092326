"""Versions of what the numbers depend on."""

from __future__ import annotations


def own_version() -> str:
    """poolswap's."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("poolswap")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"


def versions() -> dict[str, str]:
    """poolswap, the libraries that models and numbers come from, and Python."""
    import platform

    import timm
    import torch
    import torchvision

    return {
        "poolswap": own_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
