"""Where the windows of a pooling layer lie: the one definition of kernel, stride, padding and output size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

Size = int | Sequence[int]

_LARGEST = 2**31 - 1  # torch's pools count in 32 bits


def to_tuple(value: Size, dims: int, name: str) -> tuple[int, ...]:
    """One int for every dimension, or a sequence of `dims` ints (torch also takes a sequence of one)."""
    values = (value,) * dims if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) == 1:
        values *= dims
    if len(values) != dims:
        raise ValueError(f"{name} has {len(values)} values where {dims} are needed: {values}")
    return values


@dataclass(frozen=True)
class Geometry:
    """The windows of a pooling layer, as in torch.nn.MaxPoolNd; every tuple has one int per spatial dimension.

    `same` is TensorFlow's SAME padding, decided at run time from the input size; `padding` is then zero. However it is
    made (called, unpickled, copied with changes, read from a plan's or a checkpoint's JSON), it is one that torch's own
    pools take: anything else raises ValueError.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    same: bool = False

    def __post_init__(self) -> None:
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        if not all(isinstance(size, tuple) and len(size) == self.dims for size in sizes) or not 1 <= self.dims <= 3:
            raise ValueError(
                f"kernel_size, stride, padding and dilation must be tuples of the same 1 to 3 ints: {sizes}"
            )
        if not all(isinstance(n, int) for size in sizes for n in size):
            raise ValueError(f"kernel_size, stride, padding and dilation must be ints: {sizes}")
        if max(map(max, sizes)) > _LARGEST:
            raise ValueError(f"kernel_size, stride, padding and dilation must be below 2**31: {sizes}")
        if min(self.kernel_size) < 1 or min(self.stride) < 1 or min(self.dilation) < 1:
            raise ValueError(f"kernel_size, stride and dilation must be positive: {self}")
        if min(self.padding) < 0 or any(p > k // 2 for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(f"padding must be between 0 and half the window: {self}")
        if self.same and max(self.padding) > 0:
            raise ValueError(f"SAME padding is decided at run time; padding must be 0: {self}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickle and copy through the constructor, which checks."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @classmethod
    def make(
        cls,
        dims: int,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
        same: bool = False,
    ) -> Geometry:
        """A checked geometry from what torch.nn.MaxPoolNd takes: ints or tuples, stride defaulting to the kernel.

        Raises ValueError for sizes that torch's own pools refuse.
        """
        kernel = to_tuple(kernel_size, dims, "kernel_size")
        return cls(
            kernel_size=kernel,
            stride=kernel if stride is None or stride == () else to_tuple(stride, dims, "stride"),
            padding=to_tuple(padding, dims, "padding"),
            dilation=to_tuple(dilation, dims, "dilation"),
            ceil_mode=bool(ceil_mode),
            same=bool(same),
        )

    @property
    def dims(self) -> int:
        """Number of spatial dimensions: 1, 2 or 3."""
        return len(self.kernel_size)

    @property
    def extent(self) -> tuple[int, ...]:
        """Elements from a window's first to its last, dilation counted."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    def place(self, input_size: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(leading padding, output size) for an input of this spatial size.

        Window o of a dimension starts at element o * stride - leading padding. The output size is torch's:
        floor((n + padding - extent) / stride) + 1, or with ceil_mode the ceiling, less a last window that would
        start in the trailing padding. Raises ValueError where no window fits, and for an empty map, as torch does.
        """
        placed = [
            self._place_same(n, e, s) if self.same else (p, p)
            for n, e, s, p in zip(input_size, self.extent, self.stride, self.padding, strict=True)
        ]
        sizes = []
        for n, e, s, (before, after) in zip(input_size, self.extent, self.stride, placed, strict=True):
            slack = n + before + after - e
            out = ((slack + s - 1) // s if self.ceil_mode else slack // s) + 1
            if self.ceil_mode and s + after > e and (out - 1) * s >= n + before:  # the first is a fact of the layer
                out -= 1
            sizes.append(out)
        known = (size for size in (*input_size, *sizes) if not isinstance(size, Tensor))  # TorchScript's are tensors
        if any(size < 1 for size in known):
            raise ValueError(f"no window fits: input size {tuple(input_size)} with {self} gives {tuple(sizes)}")
        return tuple(before for before, _ in placed), tuple(sizes)

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Spatial output size for an input of this spatial size."""
        return self.place(input_size)[1]

    @staticmethod
    def _place_same(n: int, extent: int, stride: int) -> tuple[int, int]:
        total = ((n + stride - 1) // stride - 1) * stride + extent - n  # ONNX would round -n // stride up
        if stride > extent:  # otherwise it is never negative, of whatever size a trace is
            total = max(total, 0)
        return total // 2, total - total // 2

    def __str__(self) -> str:
        """Short form as the tables print it: 3x3/2 p1, with dilation, ceil and same where they apply."""

        def join(values: tuple[int, ...]) -> str:
            return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))

        text = "x".join(map(str, self.kernel_size)) + f"/{join(self.stride)}"
        if max(self.padding) > 0:
            text += f" p{join(self.padding)}"
        if max(self.dilation) > 1:
            text += f" d{join(self.dilation)}"
        return text + " ceil" * self.ceil_mode + " same" * self.same
