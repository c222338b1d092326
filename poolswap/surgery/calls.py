"""What a call of one of torch's pooling functions says: operation, windows, output.

The catalogue below is every function of torch that can pool a feature map. `read_call` turns one call of it into a
`PoolingCall`; `is_pool_module` knows the modules that are nothing but one such call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool, FastAdaptiveMaxPool
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from poolswap.geometry import Geometry

Op = Literal["max", "avg"]
SiteOp = Literal["max", "avg", "conv"]  # a strided convolution pools nothing, and keeps every stride-th element

_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_ADAPTIVE = ("output_size", "return_indices")
_REDUCE = ("dim", "keepdim")


# No dataclass: torch 2.7 compiles no call of a field of one.
class PoolingFunction(NamedTuple):
    """One function of torch: its name in the field's spelling, what it computes, and its parameters after the input."""

    name: str
    function: Callable[..., Any]
    op: Op
    dims: int | None  # None where the input decides
    parameters: tuple[str, ...]
    indices: bool = False  # returns (output, indices) whatever its arguments say


def _catalogue() -> list[PoolingFunction]:
    functions = [
        PoolingFunction("Tensor.mean", Tensor.mean, "avg", None, _REDUCE),
        PoolingFunction("torch.mean", torch.mean, "avg", None, _REDUCE),
        PoolingFunction("Tensor.amax", Tensor.amax, "max", None, _REDUCE),
        PoolingFunction("torch.amax", torch.amax, "max", None, _REDUCE),
    ]
    for d in (1, 2, 3):
        functions += [
            PoolingFunction(f"F.max_pool{d}d", getattr(F, f"max_pool{d}d"), "max", d, _MAX),
            PoolingFunction(f"torch.max_pool{d}d", getattr(torch, f"max_pool{d}d"), "max", d, _MAX[:-1]),
            PoolingFunction(
                f"F.max_pool{d}d_with_indices", getattr(F, f"max_pool{d}d_with_indices"), "max", d, _MAX, indices=True
            ),
            PoolingFunction(f"F.avg_pool{d}d", getattr(F, f"avg_pool{d}d"), "avg", d, _AVG),
            PoolingFunction(f"F.adaptive_avg_pool{d}d", getattr(F, f"adaptive_avg_pool{d}d"), "avg", d, _ADAPTIVE[:-1]),
            PoolingFunction(f"F.adaptive_max_pool{d}d", getattr(F, f"adaptive_max_pool{d}d"), "max", d, _ADAPTIVE),
            PoolingFunction(
                f"F.adaptive_max_pool{d}d_with_indices",
                getattr(F, f"adaptive_max_pool{d}d_with_indices"),
                "max",
                d,
                _ADAPTIVE,
                indices=True,
            ),
        ]
    functions.append(
        PoolingFunction("torch.adaptive_max_pool1d", torch.adaptive_max_pool1d, "max", 1, _ADAPTIVE[:-1], indices=True)
    )
    return functions


FUNCTIONS: Mapping[str, PoolingFunction] = {entry.name: entry for entry in _catalogue()}
BY_FUNCTION: Mapping[Callable[..., Any], PoolingFunction] = {entry.function: entry for entry in FUNCTIONS.values()}


@dataclass(frozen=True)
class PoolingCall:
    """One pooling call, as its arguments say it. Exactly one of `geometry`, `output_size` and `axes` is set."""

    op: SiteOp
    dims: int
    geometry: Geometry | None = None
    output_size: tuple[int | None, ...] | None = None
    axes: tuple[int, ...] | None = None
    keepdim: bool = False
    returns_indices: bool = False
    divisor_override: int | None = None

    @property
    def picks(self) -> bool:
        """Whether it has the windows of non-maximum suppression: the odd neighbourhood of every element."""
        g = self.geometry
        centred = g is not None and set(g.stride) == {1} and all(k % 2 and k > 1 for k in g.kernel_size)
        return self.op == "max" and centred

    def covers(self, shape: Sequence[int]) -> bool:
        """Whether the window is the whole map of an input of this shape, or larger than it."""
        return self.geometry is not None and all(
            k >= n for k, n in zip(self.geometry.kernel_size, shape[-self.dims :], strict=True)
        )

    def __str__(self) -> str:
        """Geometry, grid or axes in short form."""
        if self.geometry is not None:
            return str(self.geometry)
        if self.output_size is not None:
            return "to " + "x".join("·" if size is None else str(size) for size in self.output_size)
        return "all"


def read_call(entry: PoolingFunction, args: Sequence[Any], kwargs: Mapping[str, Any]) -> PoolingCall | None:
    """What entry.function(*args, **kwargs) says; None for a mean or maximum over anything but all spatial axes."""
    x = call_input(args, kwargs)
    given = dict(zip(entry.parameters, args[1:], strict=False)) | dict(kwargs)
    if entry.dims is None:
        return _read_reduction(entry.op, x, given)
    indices = entry.indices or bool(given.get("return_indices", False))
    if "output_size" in given:
        size = given["output_size"]
        sizes = (size,) * entry.dims if isinstance(size, int) or size is None else tuple(size)
        return PoolingCall(
            entry.op,
            entry.dims,
            output_size=tuple(None if s is None else int(s) for s in sizes),
            returns_indices=indices,
        )
    geometry = Geometry.make(
        entry.dims,
        given["kernel_size"],
        given.get("stride") or None,  # torch takes an empty list too
        given.get("padding", 0),
        given.get("dilation", 1),
        given.get("ceil_mode", False),
    )
    return PoolingCall(
        entry.op,
        entry.dims,
        geometry=geometry,
        returns_indices=indices,
        divisor_override=given.get("divisor_override"),
    )


def call_input(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The pooled tensor among the arguments of a pooling function."""
    x: Tensor = args[0] if args else kwargs["input"]
    return x


def _read_reduction(op: Op, x: Tensor, given: Mapping[str, Any]) -> PoolingCall | None:
    dim = given.get("dim", given.get("axis"))
    if dim is None or x.dim() not in (4, 5):
        return None
    axes = tuple(sorted(int(a) % x.dim() for a in ((dim,) if isinstance(dim, int) else dim)))
    spatial = x.dim() - 2
    channels_first, channels_last = tuple(range(2, x.dim())), tuple(range(1, x.dim() - 1))
    if axes not in (channels_first, channels_last):
        return None
    return PoolingCall(op, spatial, axes=axes, keepdim=bool(given.get("keepdim", given.get("keepdims", False))))


class StockPool(nn.Module):
    """A functional pooling call as a module: runs the function that the owner called, with the owner's arguments."""

    def __init__(self, function: str, call: PoolingCall) -> None:
        super().__init__()
        self.function = function
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """function(*args, **kwargs)."""
        return FUNCTIONS[self.function].function(*args, **kwargs)

    def extra_repr(self) -> str:
        """The function and what its arguments said when it was found."""
        return f"{self.function}, {self.call}"


_TORCH_POOLS = tuple(
    getattr(nn, f"{kind}Pool{d}d") for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for d in (1, 2, 3)
)
_SAME_POOLS = (MaxPool2dSame, AvgPool2dSame)
_POOLS = (*_TORCH_POOLS, *_SAME_POOLS, FastAdaptiveAvgPool, FastAdaptiveMaxPool, StockPool)
_FORWARDS = frozenset(cls.forward for cls in _POOLS)
_SAME_FORWARDS = frozenset(cls.forward for cls in _SAME_POOLS)


def is_pool_module(module: nn.Module) -> bool:
    """Whether the module is nothing but one pooling call: a class of torch or timm with its forward not overridden."""
    return type(module).forward in _FORWARDS and "forward" not in vars(module)


def geometry_of(module: nn.Module) -> Geometry | None:
    """The windows of a stock window pool, read off its attributes; None for any other module."""
    if isinstance(module, StockPool):
        return module.call.geometry
    if not isinstance(module, _TORCH_POOLS[:6]) or not is_pool_module(module):
        return None
    dims = 1 + _TORCH_POOLS.index(next(cls for cls in _TORCH_POOLS if isinstance(module, cls))) % 3
    return Geometry.make(
        dims,
        module.kernel_size,
        module.stride,
        module.padding,
        getattr(module, "dilation", 1),
        module.ceil_mode,
        same=type(module).forward in _SAME_FORWARDS,
    )


def module_call(module: nn.Module, call: PoolingCall) -> PoolingCall:
    """The call that a pool module stands for, given the torch call it made: timm's SAME pools pad before they pool."""
    if type(module).forward in _SAME_FORWARDS and call.geometry is not None:
        return replace(call, geometry=replace(call.geometry, same=True))
    return call
