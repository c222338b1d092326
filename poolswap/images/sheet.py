"""The contact sheet: for every kernel a block of cells, each a restored picture, a zoomed detail, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.files import atomic_path
from poolswap.images.compare import Comparison, Pooled
from poolswap.images.picture import Picture

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

BACKGROUND, TEXT, FAINT, ACCENT = "#17181c", "#f2f2f2", "#9a9ca5", "#ffb454"
CELL_WIDTH, GAP, MARGIN, COLUMNS = 280, 18, 36, 5
LINE, HEADING, TITLE = 17, 24, 34
_LABEL_HEIGHT = 58
_TALLEST = 420
_ZOOM = 6  # the detail is this many times smaller than the picture


@dataclass(frozen=True)
class Box:
    """A detail of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: Tensor) -> Tensor:
        """The detail of (3, H, W)."""
        return pixels[:, self.top : self.top + self.height, self.left : self.left + self.width]


def busiest_detail(picture: Picture) -> Box:
    """The detail, a sixth of the picture a side, in which neighbouring pixels differ most; not at the border."""
    grey = picture.pixels.mean(0)
    change = grey.diff(dim=0)[:, :-1].abs() + grey.diff(dim=1)[:-1].abs()
    height, width = (max(n // _ZOOM, 8) for n in picture.size)
    activity = F.avg_pool2d(change[None, None], (height, width), 1).squeeze()
    top, left = (n // 12 for n in activity.shape)
    inner = activity[top : activity.shape[0] - top, left : activity.shape[1] - left]
    place = int(inner.argmax())
    return Box(top + place // inner.shape[1], left + place % inner.shape[1], height, width)


def write_sheet(path: Path | str, comparison: Comparison, *, force: bool = False) -> None:
    """Draw the comparison as a PNG. Raises InputError where the file exists, unless `force`."""
    image = draw_sheet(comparison)
    with atomic_path(path, force=force) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def draw_sheet(comparison: Comparison) -> Image.Image:
    """The contact sheet of one picture."""
    from PIL import Image, ImageDraw

    picture, box = comparison.picture, busiest_detail(comparison.picture)
    cells = 1 + max(len(comparison.of_kernel(k)) for k in comparison.kernels)
    columns = ceil(cells / ceil(cells / COLUMNS))  # no row much shorter than the others
    cell = _Cell.of(picture, box)
    width = 2 * MARGIN + columns * CELL_WIDTH + (columns - 1) * GAP
    rows = {k: ceil((1 + len(comparison.of_kernel(k))) / columns) for k in comparison.kernels}
    block = HEADING + 2 * GAP
    height = 2 * MARGIN + TITLE + 2 * LINE + sum(block + n * (cell.height + GAP) for n in rows.values())
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _heading(draw, comparison, columns)
    original = (picture.pixels * 255).round().to(torch.uint8)
    y = MARGIN + TITLE + 2 * LINE
    for kernel in comparison.kernels:
        results = comparison.of_kernel(kernel)
        draw.text((MARGIN, y + GAP), f"{kernel}x{kernel} windows", fill=TEXT, font=_font(HEADING))
        y += block
        best = comparison.best(kernel, "ssim")
        for n, result in enumerate([None, *results]):
            place = (
                MARGIN + n % columns * (CELL_WIDTH + GAP),
                y + n // columns * (cell.height + GAP),
            )
            cell.paint(sheet, draw, place, original if result is None else result.restored, box)
            cell.label(draw, place, result, result is not None and result.operator in best)
        y += rows[kernel] * (cell.height + GAP)
    return sheet


@dataclass(frozen=True)
class _Cell:
    """The two images of a cell and their heights."""

    whole: tuple[int, int]
    detail: tuple[int, int]

    @classmethod
    def of(cls, picture: Picture, box: Box) -> _Cell:
        return cls(_fitted(*picture.size), _fitted(box.height, box.width))

    @property
    def height(self) -> int:
        return self.whole[1] + 4 + self.detail[1] + _LABEL_HEIGHT

    def paint(
        self, sheet: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], pixels: Tensor, box: Box
    ) -> None:
        from PIL import Image

        x, y = place
        full = to_image(pixels).resize(self.whole, Image.Resampling.LANCZOS)
        # Enlarged pixel by pixel: the detail shows what the operator did, and nothing of the enlargement.
        detail = to_image(box.cut(pixels)).resize(self.detail, Image.Resampling.NEAREST)
        sheet.paste(full, (x, y))
        sheet.paste(detail, (x, y + self.whole[1] + 4))
        scale = self.whole[0] / pixels.shape[2]
        left, top = x + box.left * scale, y + box.top * scale
        draw.rectangle((left, top, left + box.width * scale, top + box.height * scale), outline=ACCENT, width=2)

    def label(self, draw: ImageDraw.ImageDraw, place: tuple[int, int], result: Pooled | None, best: bool) -> None:
        x, y = place[0], place[1] + self.height - _LABEL_HEIGHT + 6
        name = "original" if result is None else result.operator
        draw.text((x, y), name, fill=ACCENT if best else TEXT, font=_font(20))
        if result is not None:
            numbers = f"SSIM {result.ssim:.3f}    PSNR {result.psnr:.2f} dB"
            draw.text((x, y + 26), numbers, fill=ACCENT if best else FAINT, font=_font(15))


def _fitted(height: int, width: int) -> tuple[int, int]:
    """(width, height) that fill a cell's width, or of a tall picture its height."""
    scale = min(CELL_WIDTH / width, _TALLEST / height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _heading(draw: ImageDraw.ImageDraw, comparison: Comparison, columns: int) -> None:
    picture = comparison.picture
    height, width = picture.size
    draw.text((MARGIN, MARGIN - 8), picture.name, fill=TEXT, font=_font(TITLE))
    line = f"{width}x{height}, pooled, then restored by {comparison.restore} interpolation"
    if columns > 2:
        line += "; higher is better; the best SSIM of each window size is coloured"
    draw.text((MARGIN, MARGIN + TITLE + 4), line, fill=FAINT, font=_font(LINE))


def to_image(pixels: Tensor) -> Image.Image:
    """The image of (3, H, W) uint8."""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
