"""A replacement stands in for its layer to everything that is not its arithmetic: hooks, attributes, isinstance.

A forward may walk its layers by `isinstance(layer, nn.MaxPool2d)`, as encoders with skip connections do. Were the
answer another one after the swap, it would take another path and say nothing. So the replacement's class becomes a
subclass of its own class and the stock layer's. A forward that reads the answer and then pools by itself is caught by
the proof of the swap.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from inspect import signature
from typing import Any

from torch import Tensor, nn

from poolswap.surgery.calls import StockPool, is_pool_module
from poolswap.surgery.layers import is_conv
from poolswap.surgery.mark import mark

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_HOOKS = tuple(name for name, value in vars(nn.Module()).items() if "hooks" in name and isinstance(value, dict))


def stand_in(new: nn.Module, old: nn.Module) -> None:
    """Give `new` the hooks, the attributes and the class of the layer that it replaces, next to its own.

    Hooks are shared, so that their handles keep working and the layer has them again when it comes back.
    """
    mark(new, old)
    new.train(old.training)
    for name in _HOOKS:
        own, theirs = vars(new)[name], vars(old)[name]
        vars(new)[name] = type(own)({**own, **theirs}) if own else theirs
    if vars(old)["_is_full_backward_hook"] is not None:
        vars(new)["_is_full_backward_hook"] = vars(old)["_is_full_backward_hook"]
    _rebind(new)
    if isinstance(old, StockPool):
        return
    for name, value in vars(old).items():
        if name not in _OF_EVERY_MODULE:
            vars(new).setdefault(name, value)
    if is_pool_module(old) or is_conv(old):
        new.__class__ = _class_of(type(new), type(old))


def come_back(old: nn.Module, new: nn.Module) -> None:
    """Undo `stand_in` for the layer: it keeps what was hooked onto its replacement, and has its mode."""
    old.train(new.training)
    vars(old)["_is_full_backward_hook"] = vars(new)["_is_full_backward_hook"]
    _rebind(old)


def _rebind(module: nn.Module) -> None:
    """Hooks that are given their module are given this one."""
    for hook in module._load_state_dict_pre_hooks.values():
        if getattr(hook, "with_module", False):
            vars(hook)["module"] = weakref.ref(module)


_classes: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def _class_of(cls: type[nn.Module], stock: type[nn.Module]) -> type[nn.Module]:
    """The one class of replacements by `cls` of layers of class `stock`; `cls` itself where they cannot be one."""
    if (cls, stock) not in _classes:
        try:
            _classes[cls, stock] = _make_class(cls, stock)
        except TypeError:  # no order of the bases, or no layout
            _classes[cls, stock] = cls
    return _classes[cls, stock]


def _make_class(cls: type[nn.Module], stock: type[nn.Module]) -> type[nn.Module]:
    def reduce(self: nn.Module) -> tuple[Any, ...]:
        return _rebuild, (cls, stock), self.__getstate__()

    body: dict[str, Any] = {"__reduce__": reduce, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    # The layer's sizes as its owner wrote them, numbers where they were numbers.
    sizes = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    body |= {name: _attribute(name, own) for name in sizes if isinstance(own := getattr(cls, name, None), property)}
    if list(signature(stock.forward).parameters)[1:] == ["input"]:
        body["forward"] = _taking_input(cls.forward)
    return type(cls.__name__, (cls, stock), body)


def _attribute(name: str, own: property) -> property:
    def get(self: nn.Module) -> Any:
        return vars(self)[name] if name in vars(self) else own.__get__(self)

    return property(get)


def _taking_input(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The forward with its parameter named as torch's pools name theirs."""

    def named(self: nn.Module, input: Tensor) -> Tensor:
        return forward(self, input)

    named.__name__, named.__doc__ = "forward", forward.__doc__
    return named


def _rebuild(cls: type[nn.Module], stock: type[nn.Module]) -> nn.Module:
    """An empty replacement, for copying and pickling: the generated class itself cannot be imported."""
    both = _class_of(cls, stock)
    return both.__new__(both)
