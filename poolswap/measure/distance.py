"""How far apart two lists of tensors are, relative to the second."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def relative_distance(mine: Sequence[Tensor], theirs: Sequence[Tensor], order: float = 2) -> float:
    """The largest |a - b| / |b| over the pairs: Euclidean norms, or with order=inf the largest elements.

    Where b is all zeros it is |a - b|. The same infinity or a NaN on both sides is no difference; on one side it is an
    infinite one, and so are lists or shapes that differ.
    """
    if [tuple(a.shape) for a in mine] != [tuple(b.shape) for b in theirs]:
        return float("inf")
    return max((_distance(a.double(), b.double(), order) for a, b in zip(mine, theirs, strict=True)), default=0.0)


def _distance(a: Tensor, b: Tensor, order: float) -> float:
    if not b.numel():
        return 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    gap = float(torch.linalg.vector_norm(torch.where(same, 0.0, a - b), order))
    size = float(torch.linalg.vector_norm(torch.where(b.isfinite(), b, 0.0), order))
    distance = gap / size if size else gap
    return distance if distance == distance else float("inf")
