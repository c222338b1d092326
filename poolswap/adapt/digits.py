"""scikit-learn's 1,797 handwritten digits: real images that need no network, with a fixed split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from poolswap.errors import InputError, MissingExtraError

CLASSES = 10
_VALIDATION = 360
_SPLIT_SEED = 0


def load_digits(input_size: Sequence[int]) -> tuple[TensorDataset, TensorDataset]:
    """(train, val) of 1,437 and 360 images (C, H, W) in [-1, 1], resized bilinearly, with their labels.

    The split is the same for every size and seed. Raises MissingExtraError without scikit-learn.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtraError("scikit-learn, which brings the digits,", "digits") from None
    if len(input_size) != 3:
        raise InputError(f"digits are images, the model takes {tuple(input_size)}", "give a data set of its own")
    channels, height, width = input_size
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
    images, targets = images.expand(-1, channels, -1, -1), torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    val, train = order[:_VALIDATION], order[_VALIDATION:]
    return TensorDataset(images[train], targets[train]), TensorDataset(images[val], targets[val])
