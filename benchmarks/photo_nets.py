"""Small networks for 64x64 photographs, with the pools of the families that they are of.

poolswap ablate --study benchmarks/photographs-vgg.yaml -o vgg --trust-code

The detector's large windows are slow as max pools, which a search for time may find:

poolswap finetune benchmarks/photo_nets.py:detector --data photographs --input-size 3,64,64 --from-scratch --epochs 5 \\
    --lr 0.004 -o detector
poolswap search detector/last.safetensors --data photographs --trust-code --for latency --to soft,soft:beta=8 \\
    --seeds 2 --max-drop 2 -o found
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def vgg(num_classes: int = 17) -> nn.Module:
    """Four convolutions, each followed by a max pool that halves the map."""
    layers: list[nn.Module] = []
    before = 3
    for width in (8, 16, 32, 48):
        layers += [*_convolution(before, width), nn.MaxPool2d(2)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))


def resnet(num_classes: int = 17) -> nn.Module:
    """A stem with a max pool, three blocks; the shortcuts of the two that halve the map are average pools."""
    stem = [*_convolution(3, 16, stride=2), nn.MaxPool2d(3, 2, 1)]
    blocks = [Residual(16, 16), Residual(16, 32, stride=2), Residual(32, 64, stride=2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


def densenet(num_classes: int = 17) -> nn.Module:
    """A stem with a max pool, three dense blocks of three layers, two transitions that halve the map by an average."""
    layers: list[nn.Module] = [*_convolution(3, 16, stride=2), nn.MaxPool2d(3, 2, 1)]
    width = 16
    for n in range(3):
        if n:
            layers += [*_convolution(width, width // 2, kernel_size=1), nn.AvgPool2d(2)]
            width //= 2
        for _ in range(3):
            layers.append(Dense(width, 12))
            width += 12
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


def detector(num_classes: int = 17) -> nn.Module:
    """A detector's end in small: a stem to a map of 16x16, a pyramid of stride-1 max pools beside it, one more pool."""
    stem = [*_convolution(3, 16, stride=2), *_convolution(16, 24, stride=2)]
    neck = [Pyramid(), *_convolution(96, 32, kernel_size=1), nn.MaxPool2d(2), *_convolution(32, 48)]
    return nn.Sequential(*stem, *neck, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, num_classes))


class Pyramid(nn.Module):
    """The map beside its maxima over windows of 5, 9 and 13, as spatial pyramids in detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(pool(x) for pool in self.pools)], 1)


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(before, width, stride=stride), *_convolution(width, width)[:2])
        pool = [nn.AvgPool2d(stride)] if stride > 1 else []
        change = _convolution(before, width, kernel_size=1)[:2] if before != width else []
        self.shortcut = nn.Sequential(*pool, *change)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


class Dense(nn.Module):
    """A convolution whose maps join those that it was given."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(before, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def _convolution(before: int, width: int, *, kernel_size: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, width, kernel_size, stride, kernel_size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
