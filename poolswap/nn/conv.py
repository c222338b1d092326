"""A strided convolution whose downsampling is a pooling operator, as antialiased networks have it.

Zhang, "Making convolutional networks shift-invariant again", ICML 2019, section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.nn.base import Pool

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class ConvThenPool(Pool):
    """The convolution with stride 1, then `pool` with its stride.

    Takes the parameters of `conv` themselves, under their names. The map between the two is prod(stride) times as large
    as the output, and so is the work.
    """

    def __init__(self, conv: Conv, pool: nn.Module) -> None:
        super().__init__()
        self.weight = conv.weight
        self.bias = conv.bias
        self.pool = pool
        self.padding, self.dilation, self.groups = conv.padding, conv.dilation, conv.groups
        self.around = None if conv.padding_mode == "zeros" else conv._reversed_padding_repeated_twice
        self.padding_mode = conv.padding_mode

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) or (C, *spatial) -> what the convolution gives, of the same shape."""
        padding = self.padding
        if self.around is not None:
            x, padding = F.pad(x, self.around, mode=self.padding_mode), (0,) * (self.weight.dim() - 2)
        convolve = _CONV[self.weight.dim() - 2]
        y: Tensor = convolve(x, self.weight, self.bias, 1, padding, self.dilation, self.groups)
        pooled: Tensor = self.pool(y)
        return pooled

    def extra_repr(self) -> str:
        """The convolution's sizes."""
        filters, channels, *kernel = self.weight.shape
        sizes = "x".join(map(str, kernel))
        return f"{channels * self.groups} -> {filters} channels, {sizes}/1, padding={self.padding}"
