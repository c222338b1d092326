"""Data sets that come with installed packages: small pictures in memory, as tensors of the size that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from poolswap.errors import InputError


class Pixels(Dataset[tuple[Tensor, Tensor]]):
    """(image (C, H, W) in [-1, 1], target) of each of `pixels` (N, c, h, w), bytes from 0 to `white`.

    An image is resized bilinearly (smoothed first where it shrinks) and gets or loses its colour as `size` asks.
    `groups` says which images belong together, `digest` is of the pixels and targets. Raises InputError for a size that
    is not that of a picture.
    """

    def __init__(
        self,
        pixels: Tensor,
        targets: Tensor,
        size: Sequence[int],
        *,
        white: int = 255,
        groups: Sequence[str] | None = None,
    ) -> None:
        colours = pixels.shape[1]
        if len(size) != 3 or (colours > 1 and size[0] not in (1, colours)):
            raise InputError(
                f"the data is pictures of {colours} channels, the model takes {tuple(size)}", "use data of its own"
            )
        self.pixels, self.targets, self.size, self.white, self.groups = pixels, targets, tuple(size), white, groups

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        (channels, *sides), image = self.size, self.pixels[index].float() * (2 / self.white) - 1
        if len(image) > channels:
            image = image.mean(0, keepdim=True)
        if image.shape[1:] != tuple(sides):
            smaller = sides[0] < image.shape[1] or sides[1] < image.shape[2]
            image = F.interpolate(image[None], sides, mode="bilinear", align_corners=False, antialias=smaller)[0]
        return image.expand(channels, -1, -1), self.targets[index]

    @property
    def digest(self) -> str:
        """sha256 of the pixels and the targets."""
        found = sha256(str(tuple(self.pixels.shape)).encode())
        for tensor in (self.pixels, self.targets):
            found.update(tensor.contiguous().numpy().tobytes())
        return found.hexdigest()
