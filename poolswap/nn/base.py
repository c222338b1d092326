"""What every window pooling module has: a geometry, and torch's attribute names for it."""

from __future__ import annotations

from torch import Tensor, nn

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite


class WindowPool(nn.Module):
    """A pooling operator over the windows of `site`.

    A subclass implements `forward`: x (N, C, *spatial) or (C, *spatial) -> the same with the spatial size
    `geometry.output_size(spatial)`, in x's dtype. Its options are the keyword-only parameters of its `__init__`.
    """

    geometry: Geometry

    def __init__(self, site: WindowSite) -> None:
        super().__init__()
        self.geometry = site.geometry

    def forward(self, x: Tensor) -> Tensor:
        """Pool x."""
        raise NotImplementedError

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Window size of each spatial dimension."""
        return self.geometry.kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        """Step between windows."""
        return self.geometry.stride

    @property
    def padding(self) -> tuple[int, ...]:
        """Padding on both sides, never part of a window."""
        return self.geometry.padding

    @property
    def dilation(self) -> tuple[int, ...]:
        """Step between the elements of a window."""
        return self.geometry.dilation

    @property
    def ceil_mode(self) -> bool:
        """Whether a last, partial window counts."""
        return self.geometry.ceil_mode

    def extra_repr(self) -> str:
        """The geometry in short form."""
        return str(self.geometry)
