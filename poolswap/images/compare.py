"""Downsample a picture by every operator, restore it, and measure what was lost.

As table 1 of Stergiou, Poppe, Kalliatakis, "Refining activation downsampling with SoftPool", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.images.picture import Picture
from poolswap.images.quality import psnr, ssim
from poolswap.nn.site import WindowSite
from poolswap.operators import Operator
from poolswap.operators.registry import parse_operator

Restore = Literal["bilinear", "nearest"]
Measure = Literal["ssim", "psnr"]

PLACES: Mapping[Measure, int] = MappingProxyType({"ssim": 3, "psnr": 2})  # digits that are printed

_FEWEST_CELLS = 4


@dataclass(frozen=True)
class Pooled:
    """One operator with one kernel: its measures, and `restored` (3, H, W) uint8, of the reference's size."""

    operator: str
    kernel: int
    ssim: float
    psnr: float
    restored: Tensor


@dataclass(frozen=True)
class Comparison:
    """One picture under every operator and kernel; kernels outermost, operators in the order asked for."""

    picture: Picture
    results: tuple[Pooled, ...]
    restore: Restore

    @property
    def kernels(self) -> tuple[int, ...]:
        """The kernels, in order."""
        return tuple(dict.fromkeys(result.kernel for result in self.results))

    def of_kernel(self, kernel: int) -> list[Pooled]:
        """The results of one kernel."""
        return [result for result in self.results if result.kernel == kernel]

    def best(self, kernel: int, measure: Measure) -> set[str]:
        """The operators whose value is the kernel's highest as it is printed: all of them where they tie."""
        results = self.of_kernel(kernel)
        shown = [round(getattr(result, measure), PLACES[measure]) for result in results]
        return {result.operator for result, value in zip(results, shown, strict=True) if value == max(shown)}


def compare(
    picture: Picture,
    operators: Sequence[str] = ("max", "avg", "soft"),
    kernels: Sequence[int] = (2, 3, 5),
    *,
    restore: Restore = "bilinear",
    on_result: Callable[[Pooled], None] = lambda result: None,
) -> Comparison:
    """Pool the picture with windows of kernel x kernel side by side, restore it by interpolation, and compare.

    An operator is in eval mode and as it starts: learnt ones have not learnt anything. The picture is cut to a multiple
    of the kernel, for the restored one to lie exactly on it. Raises InputError, before anything is pooled, for an
    operator that is not known or takes no windows, and for a kernel that leaves fewer than 4 pixels a side.
    """
    largest = min(picture.size) // _FEWEST_CELLS
    for kernel in kernels:
        if not 1 <= kernel <= largest:
            raise InputError(
                f"kernel {kernel} does not suit {picture.name}, {picture.size[1]}x{picture.size[0]} pixels",
                f"use kernels from 1 to {largest}",
            )
    parsed = [(text, *parse_operator(text)) for text in operators]
    modules = {
        kernel: [(text, _made(operator, options, kernel)) for text, operator, options in parsed] for kernel in kernels
    }
    results = []
    for kernel in kernels:
        height, width = (n // kernel * kernel for n in picture.size)
        reference = picture.pixels[:, :height, :width]
        for text, module in modules[kernel]:
            with torch.no_grad():
                pooled = module(reference).unsqueeze(0)
                restored = F.interpolate(pooled, (height, width), mode=restore).squeeze(0).clamp(0, 1)
            result = Pooled(
                operator=text,
                kernel=kernel,
                ssim=ssim(restored, reference),
                psnr=psnr(restored, reference),
                restored=(restored * 255).round().to(torch.uint8),
            )
            results.append(result)
            on_result(result)
    return Comparison(picture, tuple(results), restore)


def _made(operator: Operator, options: Mapping[str, Any], kernel: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of parameters that are drawn at the start
        return operator.make(WindowSite(Geometry.make(2, kernel), channels=3), options).eval()
