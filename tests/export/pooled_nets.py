"""Networks with the pools that exports go wrong on."""

import torch
from timm.layers import create_pool2d
from torch import Tensor, nn
from torch.nn import functional as F


class Stem(nn.Module):
    """The pools of a residual network and little else: one over windows, one over the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.global_pool(self.maxpool(self.norm(self.first(x)).relu())).flatten(1))


class Loose(Stem):
    """A forward that takes more than it needs, as YOLO's does."""

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return super().forward(x)


class Words(Stem):
    """A keyword of its own behind the images, which pool by a function."""

    def forward(self, images: Tensor, *, scale: float | None = None) -> Tensor:
        x = images if scale is None else images * scale
        x = F.max_pool2d(self.norm(self.first(x)).relu(), 3, 2, 1)
        return self.fc(x.mean((2, 3)))


class Shifted(Stem):
    """Two inputs."""

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return super().forward(x) + shift


class Overlap(nn.Module):
    """Pooling at stride 1, as inception has it, and a ceil_mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.one = nn.MaxPool2d(3, 1, 1)
        self.second = nn.Conv2d(8, 8, 1)
        self.two = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc = nn.Linear(8, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.second(self.one(self.first(x).relu()))).mean((2, 3)))


class SameNet(nn.Module):
    """SAME max and average pooling at sizes where they pad unevenly."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.max = create_pool2d("max", 3, 2, padding="same")
        self.second = nn.Conv2d(8, 8, 3)
        self.avg = create_pool2d("avg", 3, 2, padding="same", count_include_pad=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avg(self.second(self.max(self.first(x).relu())).relu())
        return self.head(x.mean((2, 3)))


class Video(nn.Module):
    """Separable 3d pools, as s3d has them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(3, 6, 3, padding=1)
        self.one = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.two = nn.MaxPool3d(3, 1, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.first(x).relu())).mean((2, 3, 4)))


class Parade(nn.Module):
    """Pools side by side, one output each."""

    def __init__(self, pools: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3)
        self.pools = nn.ModuleList(nn.MaxPool2d(3, 2, 1) for _ in range(pools))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([pool(x).flatten(1) for pool in self.pools], dim=1)
