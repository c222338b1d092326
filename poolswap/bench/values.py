"""What lies in the tensors that are pooled: N(0, 1) alone hides how an operator treats what trained networks hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMAL = "N(0,1)"
PHOTOGRAPHS = "photographs"
_CROP = 224


def _spikes(shape: tuple[int, ...]) -> Tensor:
    x = torch.zeros(shape)
    x.flatten(0, 1).flatten(1)[::100, 3] = 1e4
    return x


def _photographs(shape: tuple[int, ...]) -> Tensor:
    """Activations of a ResNet-18 of random weights, its BatchNorm recalibrated once, on scikit-image's photographs.

    Of its blocks the one whose map is just as large as wanted, or larger, is resized; images and channels repeat.
    """
    size = shape[2:]
    maps = _feature_maps()
    fitting = [x for x in maps if x.shape[-1] >= max(size)]
    x = (fitting or maps)[-1 if fitting else 0]
    x = x[torch.arange(shape[0]) % x.shape[0]][:, torch.arange(shape[1]) % x.shape[1]]
    return F.interpolate(x, size, mode="bilinear", antialias=True).contiguous()


@cache
def _crops() -> Tensor:
    """(8, 3, 224, 224): two parts of each of scikit-image's photographs, normalised as networks take them."""
    from poolswap.images import bundled_pictures

    pictures = [F.interpolate(p.pixels[None], (2 * _CROP, 2 * _CROP), mode="bilinear") for p in bundled_pictures()]
    crops = torch.cat([p[:, :3, y : y + _CROP, y : y + _CROP] for p in pictures for y in (0, _CROP)])
    return (crops - 0.45) / 0.225


@cache
def _feature_maps() -> list[Tensor]:
    """Outputs of the blocks, largest first."""
    from torchvision.models import resnet18

    from poolswap.adapt import recalibrate

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = resnet18().eval()
    crops = _crops()
    recalibrate(model, [(crops,)])
    stages = [nn.Sequential(model.conv1, model.bn1, model.relu), nn.Sequential(model.maxpool, model.layer1)]
    stages += [model.layer2, model.layer3, model.layer4]
    maps = []
    with torch.no_grad():
        x = crops
        for stage in stages:
            x = stage(x)
            maps.append(x)
    assert all(a.shape[-1] > b.shape[-1] for a, b in pairwise(maps))
    return maps


VALUES: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    NORMAL: torch.randn,
    "relu x2": lambda shape: 2 * torch.randn(shape).relu(),
    "relu x8": lambda shape: 8 * torch.randn(shape).relu(),
    "relu x64": lambda shape: 64 * torch.randn(shape).relu(),
    "spikes of 1e4": _spikes,
    PHOTOGRAPHS: _photographs,
}


def available(dims: int) -> list[str]:
    """Names in `VALUES` that can be made here for so many spatial dimensions: photographs need scikit-image."""
    photographs = dims == 2 and find_spec("skimage") is not None and find_spec("PIL") is not None
    return [name for name in VALUES if name != PHOTOGRAPHS or photographs]


def network_input(shape: tuple[int, ...]) -> tuple[str, Tensor]:
    """(its name in `VALUES`, a batch of this shape): photographs where it is RGB and they can be had, or N(0, 1)."""
    if len(shape) != 4 or shape[1] != 3 or PHOTOGRAPHS not in available(2):
        return NORMAL, torch.randn(shape)
    crops = _crops()
    batch = crops[torch.arange(shape[0]) % crops.shape[0]]
    return PHOTOGRAPHS, F.interpolate(batch, shape[2:], mode="bilinear", antialias=True)
