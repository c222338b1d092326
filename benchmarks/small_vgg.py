"""A small VGG with five pools for 32x32 images: each halves the map, the last leaves one pixel.

With average pools it learns slowly, so that a search has something to find:

poolswap search benchmarks/small_vgg.py:averaging_vgg --data digits --input-size 3,32,32 --adapt scratch \\
    --set epochs=2 --set lr=0.003 --to max --max-drop 1 --trust-code -o found
"""

from __future__ import annotations

from torch import nn

WIDTHS = (16, 32, 48, 64, 64)


def small_vgg(num_classes: int = 10) -> nn.Module:
    """3x32x32 images -> logits; about 110 thousand parameters."""
    return _vgg(nn.MaxPool2d, num_classes)


def averaging_vgg(num_classes: int = 10) -> nn.Module:
    """The same network with average pools."""
    return _vgg(nn.AvgPool2d, num_classes)


def _vgg(pool: type[nn.Module], num_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for width in WIDTHS:
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [pool(2)]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before, num_classes))
