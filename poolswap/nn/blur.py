"""Anti-aliased pooling.

Zhang, "Making convolutional networks shift-invariant again", ICML 2019.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite
from poolswap.nn.windows import PlainPool, binomial, check_taps, dense_pool, low_pass


class BlurPool(PlainPool):
    """Max pooling with stride 1, then a binomial low-pass; the low-pass alone for average pools.

    The low-pass has `taps` taps and the layer's stride. With of="avg" the low-pass alone, over the layer's own windows:
    binomial weights where average pooling has equal ones (the same thing for windows of 2). `of` defaults to the layer
    that it replaces, or "max". The filter is a persistent buffer, `kernel`, of shape (taps, ...) or (*kernel_size),
    which covers real elements only. Raises ValueError unless `taps` is odd, and at most 63.
    """

    paper = "Zhang, ICML 2019"
    subsamples = True

    kernel: Tensor

    def __init__(
        self,
        site: WindowSite,
        *,
        taps: int = 3,
        of: Literal["max", "avg"] | None = None,
    ) -> None:
        super().__init__(site)
        check_taps(taps)
        self.of = of or site.stock or "max"
        taken = Geometry.make(self.geometry.dims, taps, self.geometry.stride, (taps - 1) // 2)
        self.filter = self.geometry if self.of == "avg" else taken
        self.register_buffer("kernel", binomial(self.filter.kernel_size))

    def pool(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the low-passed map at every stride."""
        dense = x if self.of == "avg" else dense_pool(x, self.geometry, "max")
        return low_pass(dense, self.kernel, self.filter)
