"""The comparison as one HTML file that needs nothing else: operators one after another, in place, with a magnifier."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.files import write_text
from poolswap.images.compare import PLACES, Comparison
from poolswap.images.sheet import busiest_detail, to_image

_TEMPLATE = Path(__file__).with_name("page.html")
_WIDEST = 960  # pixels of an embedded picture; the numbers are those of the whole one
_QUALITY = 90


def write_page(path: Path | str, comparison: Comparison, *, force: bool = False) -> None:
    """Write the page. Raises InputError where the file exists, unless `force`."""
    picture = comparison.picture
    height, width = picture.size
    data = json.dumps(_data(comparison)).replace("<", "\\u003c")  # so that no name can end the script element
    subtitle = f"{width}x{height} pixels, pooled, then restored by {comparison.restore} interpolation"
    page = Template(_TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, page.substitute(title=escape(picture.name), subtitle=subtitle, data=data), force=force)


def _data(comparison: Comparison) -> dict[str, Any]:
    picture = comparison.picture
    height, width = picture.size
    box = busiest_detail(picture)
    return {
        "kernels": comparison.kernels,
        "operators": [result.operator for result in comparison.of_kernel(comparison.kernels[0])],
        "ratio": height / width,
        "box": {
            "top": box.top / height,
            "left": box.left / width,
            "height": box.height / height,
            "width": box.width / width,
        },
        "original": _embedded((picture.pixels * 255).round().to(torch.uint8)),
        "frames": [
            {
                "operator": result.operator,
                "kernel": result.kernel,
                **{name: f"{getattr(result, name):.{places}f}" for name, places in PLACES.items()},
                "best": {name: result.operator in comparison.best(result.kernel, name) for name in PLACES},
                "image": _embedded(_extended(result.restored, picture.size)),
            }
            for result in comparison.results
        ],
    }


def _extended(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels repeated at the right and bottom to the picture's own size, so that frames lie on one another."""
    missing = (0, size[1] - pixels.shape[2], 0, size[0] - pixels.shape[1])
    return F.pad(pixels.float(), missing, mode="replicate").to(torch.uint8)


def _embedded(pixels: Tensor) -> str:
    image = to_image(pixels)
    image.thumbnail((_WIDEST, _WIDEST))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
