"""What one model did with each image: kept with a trial, so that any two trials can be compared image by image."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from poolswap.adapt.evaluate import Answers, calibration_bins

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
_BITS, _NUMBERS = ("correct", "steady"), ("loss", "margin", "confidence")


class Record(BaseModel):
    """The answers to `images` images, in the data set's order without the places in `unread`.

    The arrays are base64: of `correct` and `steady` a bit an image, the first the highest of its byte; the others are
    little-endian float32 (`poolswap.adapt.evaluate.Answers`). `of` makes one, `values` reads it.
    """

    model_config = ConfigDict(frozen=True)

    images: int = Field(gt=0)
    correct: str
    loss: str
    margin: str
    confidence: str
    steady: str | None = None
    unread: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for name in (*_BITS, *_NUMBERS):
            text = getattr(self, name)
            if text is not None:
                size = -(-self.images // 8) if name in _BITS else 4 * self.images
                if len(b64decode(text, validate=True)) != size:
                    raise ValueError(f"{name} does not have a value for each of {self.images} images")
                if not np.isfinite(self.values(name)).all():
                    raise ValueError(f"{name} has values that are not finite")
        return self

    @classmethod
    def of(cls, batches: Iterable[Answers], unread: Iterable[int] = ()) -> Record:
        """The record of these batches. Raises ValueError where there is no image."""
        columns = dict(zip(Answers._fields, zip(*batches, strict=True), strict=True))
        fields: dict[str, Any] = {name: _packed(name, parts) for name, parts in columns.items()}
        return cls(images=sum(map(len, columns["correct"])), unread=tuple(unread), **fields)

    def values(self, name: str) -> Array:
        """The column: (images,) float64. Raises KeyError for one that was not measured."""
        text = getattr(self, name)
        if text is None:
            raise KeyError(name)
        raw = b64decode(text)
        if name in _BITS:
            return np.unpackbits(np.frombuffer(raw, np.uint8), count=self.images).astype(np.float64)
        return np.frombuffer(raw, "<f4").astype(np.float64)


def miscalibration(confidence: Array, correct: Array) -> Array:
    """(images,) values from -1 to 1 whose mean is the expected calibration error, over 15 equal bins of confidence.

    In each bin the confidence less the correctness, with the sign of the bin's own sum: Guo et al. 2017's sum of
    absolute values, written as a mean over images.
    """
    gap = confidence - correct
    bins = calibration_bins(torch.from_numpy(confidence.astype(np.float32))).numpy()
    signed: Array = gap * np.sign(np.bincount(bins, gap))[bins]
    return signed


def _packed(name: str, parts: Sequence[torch.Tensor | None]) -> str | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    column = torch.cat(known).numpy()
    raw = np.packbits(column) if name in _BITS else column.astype("<f4")
    return b64encode(raw.tobytes()).decode("ascii")
