"""Small networks that several tests use."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Inner(nn.Module):
    """A functional call one level down."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1)


class Mixed(nn.Module):
    """Module and functional pools, nested owners, dropout, a branch on training, a gate, and a global head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.inner = Inner()
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv(x)).relu())
        if self.training:
            x = x + F.avg_pool2d(x, 5, 1, 2)
        x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
        x = x * x.mean((2, 3), keepdim=True).sigmoid()
        x = self.inner(x)
        x = self.drop(torch.max_pool2d(x, 2))
        return self.fc(x.mean((2, 3)))


class Shared(nn.Module):
    """One pool under two names, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.again = nn.Sequential(nn.ReLU(), self.pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.pool(self.pool(self.conv(x)))).flatten(1)
