"""A file -> an RGB picture between 0 and 1, whatever the file holds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

SMALLEST_SIDE = 16
MAX_SIDE = 1024
_BUNDLED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
_EIGHT_BIT, _SIXTEEN_BIT = 255.0, 65535.0
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: these four lay the picture on its side


@dataclass(frozen=True)
class Picture:
    """A picture: `pixels` (3, H, W), float32 in 0..1; `original_size` (H, W) where it was reduced on reading."""

    name: str
    pixels: Tensor
    original_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]


def read_picture(path: Path | str, *, max_side: int = MAX_SIDE) -> Picture:
    """The picture in a file, upright, as RGB; reduced so that no side is longer than `max_side`.

    Grey becomes three equal channels, transparency is laid on white, 16 bits keep their precision, of an animation the
    first frame counts. Raises InputError for what is no picture, is damaged, or has a side below 16 pixels, and
    MissingExtraError without Pillow.
    """
    path = Path(path)
    pixels, original = _read(path, max_side)
    if min(original) < SMALLEST_SIDE or min(pixels.shape[1:]) < SMALLEST_SIDE:
        size = f"{original[1]}x{original[0]}"
        raise InputError(f"{path} is {size} pixels: too small to compare", "give a larger or a less narrow picture")
    return Picture(path.stem, pixels, None if tuple(pixels.shape[1:]) == original else original)


def bundled_pictures(*, max_side: int = MAX_SIDE) -> list[Picture]:
    """Four photographs that come with scikit-image; nothing is downloaded. Raises MissingExtraError without it."""
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("scikit-image, whose photographs are used where none is named,", "images")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return [read_picture(folder / name, max_side=max_side) for name in _BUNDLED]


def _read(path: Path, max_side: int) -> tuple[Tensor, tuple[int, int]]:
    """(pixels, height and width in the file, both upright)."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise MissingExtraError("Pillow, which reads pictures,", "images") from None
    if not path.is_file():
        raise InputError(f"there is no picture {path}", "give the path of a PNG, JPEG, TIFF, WebP, GIF or BMP file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, of large pictures and of odd metadata
            with Image.open(path) as image:
                size = (image.height, image.width)
                turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
                image.draft("RGB", (max_side, max_side))  # a JPEG is decoded at a fraction of its size
                pixels = _pixels(ImageOps.exif_transpose(image), path, max_side)
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture that can be read", "convert it to PNG or JPEG") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} has too many pixels to be read", "reduce it first") from None
    except Exception as error:  # a damaged picture can raise nearly anything
        raise InputError(f"{path} is damaged: {error or type(error).__name__}", "copy or save it again") from error
    return pixels, size[::-1] if turned else size


def _pixels(image: Image.Image, path: Path, max_side: int) -> Tensor:
    """(3, H, W) in 0..1 of an upright image, reduced to max_side."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        grey = torch.from_numpy(_array(image)).float() / _peak(image, path)
        return _reduced(grey.unsqueeze(0), max_side).expand(3, -1, -1).contiguous()
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return torch.from_numpy(_array(image)).permute(2, 0, 1).float() / _EIGHT_BIT


def _array(image: Image.Image) -> Any:
    import numpy as np

    array = np.array(image)
    return array.astype(np.float32) if array.dtype.kind in "iu" and array.itemsize > 1 else array


def _peak(image: Image.Image, path: Path) -> float:
    """What counts as white: 1 for floats, 65535 for integers of more than 8 bits."""
    low, high = image.getextrema()
    peak = 1.0 if image.mode == "F" else _SIXTEEN_BIT
    if not 0 <= low <= high <= peak:  # type: ignore[operator]  # one band, so numbers; NaN fails as well
        raise InputError(f"{path} has values from {low} to {high}: not between 0 and {peak:g}", "scale it first")
    return peak


def _reduced(x: Tensor, max_side: int) -> Tensor:
    scale = max_side / max(x.shape[1:])
    if scale >= 1:
        return x
    size = [max(round(n * scale), 1) for n in x.shape[1:]]
    return F.interpolate(x.unsqueeze(0), size, mode="bilinear", antialias=True).squeeze(0)
