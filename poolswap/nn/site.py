"""What a pooling module is told of the place where it will stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from poolswap.geometry import Geometry

Layer = Literal["max", "avg"]


@dataclass(frozen=True, kw_only=True)
class _Site:
    """`channels` of the map; `stock`, the layer that is replaced; `start`, the layer that initial parameters imitate.

    `start` is None for the published initialisation; the others are None where nobody knows them.
    """

    channels: int | None = None
    stock: Layer | None = None
    start: Layer | None = None

    def need_channels(self) -> int:
        """`channels`, for a module with a parameter for each. Raises ValueError where they are not known."""
        if self.channels is None:
            raise ValueError("the number of channels is not known here")
        return self.channels


@dataclass(frozen=True)
class WindowSite(_Site):
    """A layer that pools windows of `geometry`."""

    geometry: Geometry

    def __str__(self) -> str:
        """The windows in short form."""
        return f"windows of {self.geometry}"


@dataclass(frozen=True)
class HeadSite(_Site):
    """The pooling of a whole map, as x.mean(axes, keepdim) or nn.AdaptiveAvgPoolNd(output_size) average it.

    `axes` are those of the map in x. `output_size` is the grid that it is pooled to, None for one value; `windows` are
    set where the stock layer pools by windows of a fixed size, and a larger map would give it a larger output.
    """

    axes: tuple[int, ...] = (-2, -1)
    keepdim: bool = False
    output_size: tuple[int | None, ...] | None = None
    windows: Geometry | None = None

    @property
    def dims(self) -> int:
        """Number of spatial dimensions: 1, 2 or 3."""
        return len(self.axes)

    def __str__(self) -> str:
        """What is pooled, in short form."""
        if self.output_size is None:
            return "a head"
        return "a head of " + "x".join("n" if size is None else str(size) for size in self.output_size)


@dataclass(frozen=True)
class RegionSite(_Site):
    """torchvision's pooling of regions of interest, `module`: RoIPool, RoIAlign or MultiScaleRoIAlign."""

    module: nn.Module

    def __str__(self) -> str:
        """The layer, in short form."""
        return f"regions by {type(self.module).__name__}"
