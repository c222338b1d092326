"""An image file of any mode -> eight bits of the mode that a model takes, upright."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from poolswap.errors import first_line

_EIGHT_BIT, _SIXTEEN_BIT = 255, 65535


def decode(file: Any, mode: str) -> Image.Image:
    """The image in an open file as "RGB" or "L", turned as its EXIF says.

    More than eight bits are scaled to eight: Pillow's own conversion would cut them off and leave white. Floats count
    from 0 to 1. Raises OSError for whatever is wrong with the file.
    """
    try:
        with Image.open(file) as image:
            return _eight_bit(ImageOps.exif_transpose(image)).convert(mode)
    except Exception as error:  # a damaged picture can raise nearly anything
        raise OSError(first_line(error)) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    white = 1.0 if image.mode == "F" else _SIXTEEN_BIT
    share = np.asarray(image).astype(np.float64) / white
    return Image.fromarray((share.clip(0, 1) * _EIGHT_BIT).round().astype(np.uint8))
