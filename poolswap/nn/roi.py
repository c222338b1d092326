"""SoftPool over regions of interest, in the place of torchvision.ops.RoIPool, RoIAlign and MultiScaleRoIAlign.

Each bin is pooled with softmax weights instead of a maximum or a mean: over its elements in `SoftRoIPool` (Girshick,
"Fast R-CNN", ICCV 2015), over its bilinear samples in the others (He et al., "Mask R-CNN", ICCV 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, RoIAlign, RoIPool, roi_align

from poolswap.functional import soft_pool2d
from poolswap.geometry import Size, to_tuple
from poolswap.nn.base import Pool
from poolswap.nn.beta import Beta, beta_repr, hold_beta, learnt_start
from poolswap.nn.site import HeadSite, RegionSite

Boxes = Tensor | Sequence[Tensor]


class _SoftRoI(Pool):
    """What the three have in common: `beta`, as SoftPool has it."""

    beta: Tensor

    def __init__(self, output_size: Size, beta: Beta, start: float | None, channels: int | None) -> None:
        super().__init__()
        height, width = to_tuple(output_size, 2, "output_size")
        self.output_size = (height, width)
        self.start = hold_beta(self, HeadSite(channels=channels), beta, start)

    def extra_repr(self) -> str:
        """Output size and beta."""
        return f"{self.output_size}, {beta_repr(self)}"


class SoftRoIAlign(_SoftRoI):
    """RoIAlign whose bins weigh their samples by softmax(beta x); beta = 0 is torchvision.ops.RoIAlign."""

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        *,
        beta: Beta = 1.0,
        start: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__(output_size, beta, start, channels)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """input (N, C, H, W), rois (K, 5) or a (L, 4) for each image, as x1 y1 x2 y2 -> (K, C, *output_size)."""
        boxes = _with_image(rois)
        if self.sampling_ratio > 0:
            return self._sampled(input, boxes, (self.sampling_ratio, self.sampling_ratio))
        # As many samples as a bin has elements, so each box has its own number of them.
        counts = self._samples(boxes)
        y = input.new_zeros(len(boxes), input.shape[1], *self.output_size)
        for samples in counts.unique(dim=0):
            chosen = (counts == samples).all(1).nonzero().squeeze(1)
            down, across = samples.tolist()
            if down > 0 and across > 0:
                y = y.index_copy(0, chosen, self._sampled(input, boxes[chosen], (down, across)))
        return y

    def _sampled(self, x: Tensor, boxes: Tensor, samples: tuple[int, int]) -> Tensor:
        return _soft_samples(
            lambda grid: roi_align(x, boxes, grid, self.spatial_scale, 1, self.aligned),
            self.output_size,
            samples,
            self.beta,
        )

    def _samples(self, boxes: Tensor) -> Tensor:
        """(K, 2): samples down and across a bin of each box, by torchvision's rule for a ratio of 0 or less."""
        sizes = (boxes[:, 3:] - boxes[:, 1:3]).flip(1) * self.spatial_scale
        if not self.aligned:
            sizes = sizes.clamp(min=1.0)
        return (sizes / sizes.new_tensor(self.output_size)).ceil().long()


class SoftRoIPool(_SoftRoI):
    """RoIPool whose bins weigh their elements by softmax(beta x); a large beta is torchvision.ops.RoIPool.

    Runs one box after another. A bin outside of the map is 0.
    """

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float,
        *,
        beta: Beta = 1.0,
        start: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__(output_size, beta, start, channels)
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:
        """input (N, C, H, W), rois (K, 5) or a (L, 4) for each image, as x1 y1 x2 y2 -> (K, C, *output_size)."""
        boxes = _with_image(rois)
        corners = boxes[:, 1:] * self.spatial_scale
        # Rounds halves away from zero, as the C++ of torchvision does and torch.round does not.
        corners = (corners.sign() * (corners.abs() + 0.5).floor()).long()
        pooled = [
            self._one(input[image], *corner)
            for image, corner in zip(boxes[:, 0].long().tolist(), corners.tolist(), strict=True)
        ]
        return torch.stack(pooled) if pooled else input.new_zeros(0, input.shape[1], *self.output_size)

    def _one(self, x: Tensor, x1: int, y1: int, x2: int, y2: int) -> Tensor:
        """The bins of one box: each is laid out to the size of the largest, with -inf, which weighs nothing."""
        down, rows = _bins(y1, max(y2 - y1 + 1, 1), self.output_size[0], x.shape[1], x.device)
        across, columns = _bins(x1, max(x2 - x1 + 1, 1), self.output_size[1], x.shape[2], x.device)
        inside = (rows >= 0).unsqueeze(1) & (columns >= 0)
        laid_out = x.index_select(1, rows.clamp(min=0)).index_select(2, columns.clamp(min=0))
        y = soft_pool2d(laid_out.masked_fill(~inside, float("-inf")), (down, across), beta=self.beta)
        return y.masked_fill(y == float("-inf"), 0.0)


class SoftMultiScaleRoIAlign(_SoftRoI):
    """MultiScaleRoIAlign whose bins weigh their samples by softmax(beta x); beta = 0 is torchvision's."""

    def __init__(
        self,
        featmap_names: list[str],
        output_size: Size,
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
        beta: Beta = 1.0,
        start: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__(output_size, beta, start, channels)
        if sampling_ratio < 1:
            raise ValueError(f"sampling_ratio must be positive, not {sampling_ratio}")
        self.sampling_ratio = sampling_ratio
        height, width = self.output_size
        self.samples = MultiScaleRoIAlign(
            featmap_names,
            (height * sampling_ratio, width * sampling_ratio),
            1,
            canonical_scale=canonical_scale,
            canonical_level=canonical_level,
        )

    @property
    def featmap_names(self) -> list[str]:
        """The maps it pools from."""
        names: list[str] = self.samples.featmap_names
        return names

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Maps by name (N, C, H, W), boxes (L, 4) and size of each image -> (K, C, *output_size)."""
        ratio = self.sampling_ratio
        return _soft_samples(
            lambda grid: self.samples(x, boxes, image_shapes), self.output_size, (ratio, ratio), self.beta
        )


def soft_region(site: RegionSite, *, beta: Beta = 1.0, start: float | None = None) -> nn.Module:
    """SoftPool in the place of torchvision's pooling of regions."""
    if isinstance(beta, str) and start is None:
        start = learnt_start(site)
    return soft_roi(site.module, beta=beta, start=start, channels=site.channels)


def soft_roi(
    module: nn.Module, *, beta: Beta = 1.0, start: float | None = None, channels: int | None = None
) -> nn.Module:
    """The soft module in the place of a RoIPool, RoIAlign or MultiScaleRoIAlign of torchvision; beta as in SoftPool.

    Raises TypeError for any other module, ValueError for a MultiScaleRoIAlign without a fixed sampling ratio.
    """
    options: dict[str, Any] = {"beta": beta, "start": start, "channels": channels}
    new: nn.Module
    if isinstance(module, RoIPool):
        new = SoftRoIPool(module.output_size, module.spatial_scale, **options)
    elif isinstance(module, RoIAlign):
        new = SoftRoIAlign(module.output_size, module.spatial_scale, module.sampling_ratio, module.aligned, **options)
    elif isinstance(module, MultiScaleRoIAlign):
        new = SoftMultiScaleRoIAlign(
            module.featmap_names,
            module.output_size,
            module.sampling_ratio,
            canonical_scale=module.canonical_scale,
            canonical_level=module.canonical_level,
            **options,
        )
    else:
        raise TypeError(f"{type(module).__name__} is not a RoI pooling of torchvision")
    return new.train(module.training)


def _soft_samples(
    sample: Callable[[tuple[int, int]], Tensor], output_size: tuple[int, int], samples: tuple[int, int], beta: Tensor
) -> Tensor:
    """SoftPool of every bin's samples: those of RoIAlign with `samples` are the bins of a finer grid with one each."""
    return soft_pool2d(sample((output_size[0] * samples[0], output_size[1] * samples[1])), samples, beta=beta)


def _with_image(rois: Boxes) -> Tensor:
    """(K, 5): boxes with their image's number before them."""
    if isinstance(rois, Tensor):
        return rois
    return torch.cat([torch.cat([boxes.new_full((len(boxes), 1), i), boxes], 1) for i, boxes in enumerate(rois)])


def _bins(first: int, length: int, count: int, size: int, device: torch.device) -> tuple[int, Tensor]:
    """(elements of the largest bin, the element at each of its places in each bin, or -1 for none).

    Bin i covers first + [floor(i length / count), ceil((i + 1) length / count)), cut to the map.
    """
    edges = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    largest = max(end - start for start, end in edges)
    places = [
        p if start <= p < end and 0 <= first + p < size else -1 - first
        for start, end in edges
        for p in range(start, start + largest)
    ]
    return largest, torch.tensor([first + p for p in places], device=device)
