"""scikit-learn's 1,797 handwritten digits: real images that need no network, with a fixed split."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from poolswap.adapt.pixels import Pixels
from poolswap.errors import MissingExtraError

CLASSES = tuple("0123456789")
_HELD_OUT = 360
_SPLIT_SEED = 0
_WHITE = 16


def check_digits() -> None:
    """Raise MissingExtraError without scikit-learn."""
    if find_spec("sklearn") is None:
        raise MissingExtraError("scikit-learn, which brings the digits,", "digits")


def load_digits(input_size: Sequence[int]) -> tuple[Pixels, Pixels, Pixels]:
    """(train, val, test) of 1,077, 360 and 360 images (C, H, W) in [-1, 1], resized bilinearly, with their labels.

    The split is the same for every size and seed. Raises MissingExtraError without scikit-learn.
    """
    check_digits()
    from sklearn import datasets

    values, labels = datasets.load_digits(return_X_y=True)
    pixels = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 8, 8)
    targets = torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    val, test, train = order.tensor_split((_HELD_OUT, 2 * _HELD_OUT))
    made = [Pixels(pixels[part], targets[part], input_size, white=_WHITE) for part in (train, val, test)]
    return made[0], made[1], made[2]
