"""Where the windows of one operator call lie: five lists in torch's schemas, one object everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from poolswap.geometry import Geometry

Sizes = Sequence[int]


class Windows(NamedTuple):
    """The windows of a call, one int a spatial dimension: window o starts at element o * stride - padding.

    `padding` is the leading one alone, and every window is clipped to the input; so ceil_mode, SAME padding, adaptive
    and global pooling are all the same here. Sizes may be symbolic.
    """

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    output_size: Sizes

    @classmethod
    def place(cls, geometry: Geometry, input_size: Sizes) -> Windows:
        """The windows of a layer on an input of this spatial size. Raises ValueError where no window fits."""
        padding, output_size = geometry.place(input_size)
        return cls(geometry.kernel_size, geometry.stride, padding, geometry.dilation, output_size)

    @property
    def dims(self) -> int:
        """Number of spatial dimensions."""
        return len(self.kernel_size)


SCHEMA = ", ".join(f"SymInt[] {name}" for name in Windows._fields)
