"""What every pooling module has: one opaque call; and, over windows, a geometry and torch's attribute names for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.fx import Proxy

from poolswap.geometry import Geometry
from poolswap.nn.site import WindowSite


class Pool(nn.Module):
    """A pooling module that torch.fx traces as one call, as torch's own layers, whatever leaves the tracer knows.

    A class says what it is: the first line of its docstring is its formula, `paper` is whose it is, and `draws` that it
    draws in train mode, or has an option to. `subsamples` says that it works with stride 1 and keeps every stride-th
    element: in the place of a convolution's stride it needs no windows. Its options are the keyword-only parameters of
    its `__init__`.
    """

    paper: ClassVar[str] = ""
    draws: ClassVar[bool] = False
    subsamples: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            cls.forward = _opaque(cls.forward)


def tracer_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The torch.fx.Tracer that is recording this call, or None."""
    for value in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(value, Proxy):
            return value.tracer
    return None


def _opaque(forward: Callable[..., Any]) -> Callable[..., Any]:
    """This forward of tensors; of a proxy, a call of the module in the graph that is being traced."""

    @wraps(forward)
    def opaque(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        tracer = tracer_of(args, kwargs)
        if tracer is not None:
            return tracer.create_proxy("call_module", tracer.path_of_module(self), args, kwargs)
        return forward(self, *args, **kwargs)

    return opaque


class WindowPool(Pool):
    """A pooling operator over the windows of `site`.

    A subclass implements `forward`: x (N, C, *spatial) or (C, *spatial) -> the same with the spatial size
    `geometry.output_size(spatial)`, in x's dtype.
    """

    geometry: Geometry

    def __init__(self, site: WindowSite) -> None:
        super().__init__()
        self.geometry = site.geometry

    def forward(self, x: Tensor) -> Tensor:
        """Pool x."""
        raise NotImplementedError

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Window size of each spatial dimension."""
        return self.geometry.kernel_size

    @property
    def stride(self) -> tuple[int, ...]:
        """Step between windows."""
        return self.geometry.stride

    @property
    def padding(self) -> tuple[int, ...]:
        """Padding on both sides, never part of a window."""
        return self.geometry.padding

    @property
    def dilation(self) -> tuple[int, ...]:
        """Step between the elements of a window."""
        return self.geometry.dilation

    @property
    def ceil_mode(self) -> bool:
        """Whether a last, partial window counts."""
        return self.geometry.ceil_mode

    def extra_repr(self) -> str:
        """The geometry in short form."""
        return str(self.geometry)
