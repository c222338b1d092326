"""Pooling that is written out: a map is cut into windows by view or unfold, and a maximum or mean taken over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CUTS = frozenset(("view", "reshape", "flatten", "unflatten"))
_REDUCTIONS = frozenset(("amax", "max", "mean"))


@dataclass(frozen=True)
class Cut:
    """A tensor whose `axes` run inside windows of a map of `shape`: {axis: dimensions of a window that it holds}.

    `halves`: one dimension was cut in two, and a maximum over either half is over windows, as over a Hiera's tokens. A
    mean may be over anything.
    """

    tensor: Tensor
    shape: torch.Size
    axes: Mapping[int, int]
    how: str
    halves: bool = False


class CutMaps:
    """Follows maps that are cut into windows through one forward."""

    def __init__(self) -> None:
        self.cuts: list[Cut] = []

    def see(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Cut | None:
        """Look at one function that ran; the windows over which it is a pooling, if it is one."""
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor):
            return None
        known = next((cut for cut in self.cuts if cut.tensor is x), None)
        if name in _REDUCTIONS:
            return _reduced(known, name, args, kwargs)
        if isinstance(output, Tensor) and (cut := _cut(name, x, known, args, output)):
            self.cuts.append(cut)
        return None


def _cut(name: str, x: Tensor, known: Cut | None, args: Sequence[Any], output: Tensor) -> Cut | None:
    shape, axes = (known.shape, known.axes) if known else (x.shape, {})
    if name == "unfold" and output.dim() == x.dim() + 1 and shape.numel() and len(shape) in (4, 5):
        return Cut(output, shape, {**axes, x.dim(): 1}, "unfold")
    if name == "unfold" and x.dim() == 4 and output.dim() == 3:  # the columns of F.unfold
        return Cut(output, shape, {}, "unfold")
    if name in _CUTS and known is None and x.dim() in (3, 4, 5):
        inner = _inner_axes(x.shape, output.shape)
        if len(inner) == 1 and (inner[0] > 2 if x.dim() > 3 else inner[0] == 2):  # channels hold no windows
            return Cut(output, shape, {inner[0] - 1: 2, inner[0]: 2}, name, halves=True)
        return Cut(output, shape, dict.fromkeys(inner, 1), name) if len(inner) > 1 and x.dim() > 3 else None
    if name in _CUTS and known is not None and not known.halves:
        if not axes and output.dim() == 4 and output.shape[:2].numel() == shape[:2].numel():
            return Cut(output, shape, {2: 2}, known.how)
        last = x.dim() - 1
        if last in axes and last - 1 in axes and output.shape == (*x.shape[:-2], x.shape[-2:].numel()):
            merged = {axis: count for axis, count in axes.items() if axis < last - 1}
            return Cut(output, shape, {**merged, last - 1: axes[last - 1] + axes[last]}, known.how)
    if name == "permute" and known is not None:
        given = args[1] if len(args) == 2 else args[1:]
        if isinstance(given, Sequence) and len(given) == x.dim():
            order = [int(axis) % x.dim() for axis in given]
            moved = {order.index(axis): count for axis, count in axes.items()}
            return Cut(output, shape, moved, known.how, known.halves)
    return None


def _reduced(known: Cut | None, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Cut | None:
    """The windows that a reduction goes over; windows have two or more dimensions."""
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if known is None or sum(known.axes.values()) < 2 or not isinstance(dim, (int, tuple, list)):
        return None
    over = {int(axis) % known.tensor.dim() for axis in ((dim,) if isinstance(dim, int) else dim)}
    if known.halves and (name == "mean" or len(over) > 1):
        return None
    how = f"{known.how} and {name}"
    return Cut(known.tensor, known.shape, known.axes, how) if over and over <= set(known.axes) else None


def _inner_axes(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """Axes of the target shape that are the inner half of a dimension of the source cut in two."""
    inner, axis = [], 0
    for size in source:
        first, product = axis, 1
        while axis < len(target) and (product < size or axis == first):
            product *= target[axis]
            axis += 1
        if product != size:
            return []
        if axis == first + 2:
            inner.append(axis - 1)
    return inner
