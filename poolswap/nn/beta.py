"""SoftPool's inverse temperature as a module holds it: fixed, or learnt, one for the layer or one a channel.

A persistent buffer or a parameter, both named `beta`: it puts the module's name into the state_dict, so a converted
checkpoint cannot load silently into the stock architecture. One a channel, over time, is AutoPool (McFee, Salamon,
Bello, "Adaptive pooling operators for weakly labeled sound event detection", TASLP 2018).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from poolswap.nn.site import HeadSite, RegionSite, WindowSite

Beta = float | Literal["learn", "channel"]

_PUBLISHED = 1.0


def hold_beta(module: nn.Module, site: WindowSite | HeadSite, beta: Beta, start: float | None = None) -> float:
    """Give a module its `beta`: a buffer of a number, or a parameter of shape () ("learn") or (C,) ("channel").

    A learnt one may become negative; it begins at `start`, else at `learnt_start`. Returns where it begins. Raises
    ValueError for what is not finite, and for a `start` that nothing begins at.
    """
    if start is not None and not isinstance(beta, str):
        raise ValueError(f"start={start:g} is of a learnt beta: add beta=learn or beta=channel")
    value = (learnt_start(site) if start is None else start) if isinstance(beta, str) else float(beta)
    if not math.isfinite(value):
        raise ValueError(f"beta must be finite, not {value:g}")
    held = torch.full((site.need_channels(),) if beta == "channel" else (), value)
    if isinstance(beta, str):
        module.beta = nn.Parameter(held)
    else:
        module.register_buffer("beta", held)
    return value


def learnt_start(site: WindowSite | HeadSite | RegionSite) -> float:
    """Where a learnt beta begins: at 0 in the place of average pooling, the same function, and at 1 elsewhere."""
    return 0.0 if site.start == "avg" else _PUBLISHED


def beta_repr(module: nn.Module) -> str:
    """beta as a module's repr shows it."""
    beta = module.beta
    assert isinstance(beta, Tensor)
    if beta.is_meta or not beta.numel():
        return "beta"
    if beta.dim():
        return f"beta={beta.min().item():g}..{beta.max().item():g} of {len(beta)} channels"
    return f"beta={beta.item():g}"
