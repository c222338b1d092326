"""poolswap: replace the pooling layers of timm and torchvision models with SoftPool, and measure what the swap did.

Every name is imported when it is first used: `import poolswap` is instant and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from poolswap.versions import own_version

if TYPE_CHECKING:
    from poolswap import functional, nn
    from poolswap.checkpoint import save_checkpoint, verify_checkpoint
    from poolswap.load import load_model
    from poolswap.surgery.plan import Plan, make_plan
    from poolswap.surgery.sites import PoolSite, find_pools
    from poolswap.surgery.swap import restore, swap_pools

    __version__: str

__all__ = [
    "Plan",
    "PoolSite",
    "__version__",
    "find_pools",
    "functional",
    "load_model",
    "make_plan",
    "nn",
    "restore",
    "save_checkpoint",
    "swap_pools",
    "verify_checkpoint",
]

_SUBMODULES = ("functional", "nn")
_HOME = {
    "Plan": "surgery.plan",
    "PoolSite": "surgery.sites",
    "find_pools": "surgery.sites",
    "load_model": "load",
    "make_plan": "surgery.plan",
    "restore": "surgery.swap",
    "save_checkpoint": "checkpoint",
    "swap_pools": "surgery.swap",
    "verify_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "__version__":
        value = own_version()
    elif name in _SUBMODULES:
        value = import_module(f"poolswap.{name}")
    elif name in _HOME:
        value = getattr(import_module(f"poolswap.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'poolswap' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
