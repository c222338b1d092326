"""Example inputs as a checkpoint keeps them: their structure, small tensors exactly, large ones as recipes of noise."""

from __future__ import annotations

import math
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from poolswap.errors import InputError
from poolswap.inputs import LARGEST_INPUT, Example

# Floating point tensors up to this many elements are kept as they are: scales, boxes, times. Images are noise anyway.
_SMALL = 1024
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32)}
_DTYPES |= {"float64": torch.float64, "bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8}
_DTYPES |= {"int16": torch.int16, "int32": torch.int32, "int64": torch.int64}


class KeptTensor(BaseModel):
    """One tensor: its bytes (zlib, base64), or the mean and deviation of the normal noise that takes its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    data: str | None = None
    mean: float = 0.0
    std: float = 1.0

    @model_validator(mode="after")
    def _sound(self) -> KeptTensor:
        if self.dtype not in _DTYPES or math.prod(self.shape) > LARGEST_INPUT:
            raise ValueError(f"no tensor of {self.dtype} {self.shape} is an example")
        return self

    @classmethod
    def of(cls, x: Tensor) -> KeptTensor:
        """Of any tensor of real numbers."""
        dtype, shape = str(x.dtype).removeprefix("torch."), tuple(x.shape)
        if x.is_floating_point() and x.numel() > _SMALL and bool(x.isfinite().all()):
            return cls(dtype=dtype, shape=shape, mean=float(x.double().mean()), std=float(x.double().std()))
        raw = x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return cls(dtype=dtype, shape=shape, data=b64encode(zlib.compress(raw)).decode())

    def make(self) -> Tensor:
        """The tensor, or noise from torch's generator. Raises InputError for bytes that are not this tensor's."""
        dtype = _DTYPES[self.dtype]
        if self.data is None:
            return (torch.randn(self.shape) * self.std + self.mean).to(dtype)
        size = math.prod(self.shape) * dtype.itemsize
        try:
            raw = zlib.decompressobj().decompress(b64decode(self.data), size + 1)
        except (ValueError, zlib.error) as error:
            raise InputError(f"the example's bytes are damaged: {error}", "make it again") from None
        if len(raw) != size:
            raise InputError(f"the example's tensor {self.dtype} {self.shape} has {len(raw)} bytes", "make it again")
        return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(self.shape) if size else torch.empty(self.shape)


class KeptExample(BaseModel):
    """One value of an example: a tensor, a list or mapping of values, or plain data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tensor", "list", "tuple", "mapping", "plain"]
    tensor: KeptTensor | None = None
    items: tuple[KeptExample, ...] = ()
    names: tuple[str, ...] = ()
    plain: bool | int | float | str | None = None

    @model_validator(mode="after")
    def _sound(self) -> KeptExample:
        if (self.kind == "tensor") != (self.tensor is not None) or len(self.names) != (
            len(self.items) if self.kind == "mapping" else 0
        ):
            raise ValueError(f"the example's {self.kind} is not whole")
        if self.elements > LARGEST_INPUT:
            raise ValueError(f"the example's tensors have {self.elements:,} elements together")
        return self

    @cached_property
    def elements(self) -> int:
        """Elements of all tensors in it."""
        own = math.prod(self.tensor.shape) if self.tensor else 0
        return own + sum(item.elements for item in self.items)

    @classmethod
    def of(cls, value: Any) -> KeptExample:
        """Raises InputError for what a checkpoint cannot hold."""
        if isinstance(value, Tensor) and str(value.dtype).removeprefix("torch.") in _DTYPES and not value.is_sparse:
            return cls(kind="tensor", tensor=KeptTensor.of(value))
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            return cls(kind="mapping", names=tuple(value), items=tuple(map(cls.of, value.values())))
        if isinstance(value, (list, tuple)):
            return cls(kind="tuple" if isinstance(value, tuple) else "list", items=tuple(map(cls.of, value)))
        if value is None or isinstance(value, (bool, int, float, str)):
            return cls(kind="plain", plain=value)
        raise InputError(
            f"a checkpoint cannot keep a {type(value).__name__} of the example",
            "give tensors, numbers, text, lists and mappings of them",
        )

    def make(self, seed: int) -> Example:
        """The example, its noise from `seed`; torch's generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made: Example = self._make()
        return made

    def _make(self) -> Any:
        if self.tensor is not None:
            return self.tensor.make()
        made: Sequence[Any] = [item._make() for item in self.items]
        if self.kind == "mapping":
            return dict(zip(self.names, made, strict=True))
        return {"list": made, "tuple": tuple(made), "plain": self.plain}[self.kind]
