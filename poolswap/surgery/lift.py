"""A functional pooling call -> a named child module of its owner.

The owner's class becomes a generated subclass whose forward runs the original one under a TorchFunctionMode. The mode
counts the owner's own calls of pooling functions and hands each lifted one to the child that stands for it. So the
owner keeps its Python: branches, lists, dropout. isinstance, deepcopy, torch.compile and torch.export keep working.

Which calls are the owner's own is decided by hooks on the modules below it: while one of them runs, every call is its
own. The hooks hold no state; they find the modes on the thread's own stack, so copies and threads do not mix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import checkpoint

from poolswap.errors import InputError
from poolswap.surgery.calls import BY_FUNCTION, PoolingCall, StockPool, call_input, is_pool_module, read_call
from poolswap.surgery.sites import PoolSite


class LiftError(RuntimeError):
    """A lifted owner pools in a way that its children cannot stand for."""


@dataclass(frozen=True)
class _Lifting:
    """What a lifted owner knows: by mode, which child each of its own calls goes to; by child, the windows found."""

    calls: Mapping[bool, Mapping[int, str]]
    found: Mapping[str, PoolingCall | None]  # None where the whole map is pooled, whatever its size


def _lifting_of(owner: nn.Module) -> _Lifting:
    lifting: Any = owner._lifting
    known: _Lifting = lifting
    return known


def lift(model: nn.Module, sites: Iterable[PoolSite]) -> list[str]:
    """Give every functional site its child module, in place; returns the paths of the owners, which change class.

    Lifting changes no output: each child runs the function that it stands for. Sites that are not functional are passed
    over, and so are owners already lifted. Raises InputError for a site that is not in the model.
    """
    functional = [site for site in sites if site.kind == "functional" and site.call is not None]
    owners = []
    for path in dict.fromkeys(site.owner for site in functional):
        try:
            owner = model.get_submodule(path)
        except AttributeError:
            raise InputError(f"the model has no module {path!r}", "find the sites of this very model first") from None
        if not is_lifted(owner):
            _lift_owner(owner, {site.path: site for site in functional if site.owner == path})
            owners.append(path)
    watch(model)
    return owners


def unlift(owner: nn.Module) -> None:
    """Give a lifted owner its own class back and take its children away."""
    lifting = _lifting_of(owner)
    for name in lifting.found:
        delattr(owner, name)
    owner.__class__ = type(owner).__mro__[1]
    del vars(owner)["_lifting"]


def is_lifted(module: nn.Module) -> bool:
    """Whether the module's functional pooling calls run through children."""
    return "_lifting" in vars(module)


def watch(model: nn.Module) -> None:
    """Hook every module below a lifted owner that may call pooling functions itself; again after modules changed."""
    for owner in model.modules():
        if is_lifted(owner):
            for module in owner.modules():
                if module is not owner and _may_pool(module) and _enter not in module._forward_pre_hooks.values():
                    module.register_forward_pre_hook(_enter)
                    module.register_forward_hook(_leave)


def unwatch(model: nn.Module) -> None:
    """Remove the hooks of `watch` from modules that no lifted owner is above of."""
    below = {module for owner in model.modules() if is_lifted(owner) for module in owner.modules()}
    for module in model.modules():
        if module not in below:
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if hook in (_enter, _leave)]:
                    del hooks[key]


def _lift_owner(owner: nn.Module, sites: Mapping[str, PoolSite]) -> None:
    children = {path.rpartition(".")[2]: site for path, site in sites.items()}
    calls: dict[bool, dict[int, str]] = {False: {}, True: {}}
    for name, site in children.items():
        assert site.call is not None
        setattr(owner, name, StockPool(site.function, site.call).train(owner.training))
        for training, index in ((False, site.eval_call), (True, site.train_call)):
            if index is not None:
                calls[training][index] = name
    if any(site.train_call is None and site.only is None for site in children.values()):
        calls[True] = calls[False]  # train mode could not be probed; a call out of order will be noticed
    found = {name: site.call if site.scope == "window" else None for name, site in children.items()}
    vars(owner)["_lifting"] = _Lifting(calls, found)
    owner.__class__ = _lifted_class(type(owner))


def _lifted_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The one subclass of `cls` that hands its pooling calls to children."""
    if cls not in _lifted_classes:
        _lifted_classes[cls] = _make_lifted_class(cls)
    return _lifted_classes[cls]


_lifted_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _make_lifted_class(cls: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _OwnCalls(self):
            return cls.forward(self, *args, **kwargs)

    def reduce(self: nn.Module) -> tuple[Any, ...]:
        return _rebuild, (cls,), self.__getstate__()

    body = {"forward": forward, "__reduce__": reduce, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), body)


def _rebuild(cls: type[nn.Module]) -> nn.Module:
    """An empty lifted instance, for copying and pickling: the generated class itself cannot be imported."""
    lifted = _lifted_class(cls)
    return lifted.__new__(lifted)


class _OwnCalls(TorchFunctionMode):
    """Hands the owner's own pooling calls to its children, by their number in this forward."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner
        self.names = _lifting_of(owner).calls[owner.training]
        self.below = 0  # how many modules below the owner are running
        self.index = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self.below or func not in BY_FUNCTION:
            return func(*args, **kwargs)
        name = self.names.get(self.index)
        self.index += 1
        if not torch.compiler.is_compiling():
            if _in_checkpoint():
                raise LiftError(
                    f"{type(self.owner).__name__} pools inside a function that it checkpoints, which would be computed "
                    f"again without its children: checkpoint a whole module instead"
                )
            self._check(name, func, args, kwargs)
        if name is None:
            return func(*args, **kwargs)
        child = getattr(self.owner, name)
        return child(*args, **kwargs) if isinstance(child, StockPool) else child(call_input(args, kwargs))

    def _check(
        self, name: str | None, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Windows must be those that were found at this place; whole-map calls may depend on the input size."""
        call = read_call(BY_FUNCTION[func], args, kwargs)
        found = _lifting_of(self.owner).found[name] if name else None
        whole = call is None or call.geometry is None or call.covers(call_input(args, kwargs).shape)
        if call == found or (whole and found is None):
            return
        mode = "train" if self.owner.training else "eval"
        raise LiftError(
            f"{type(self.owner).__name__} pools with {call or 'nothing'} in {mode} mode where {found or 'nothing'} was "
            f"found: its calls depend on its input, so it cannot be lifted"
        )


def _in_checkpoint() -> bool:
    """Whether torch.utils.checkpoint stands between the running lifted forward and this call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == checkpoint.__file__:
            return True
        if code.co_filename == __file__ and code.co_name == "forward":
            return False
        frame = frame.f_back
    return False


def _enter(module: nn.Module, args: Any) -> None:
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, _OwnCalls):
            mode.below += 1


def _leave(module: nn.Module, args: Any, output: Tensor) -> None:
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, _OwnCalls):
            mode.below -= 1


def _may_pool(module: nn.Module) -> bool:
    """torch's own layers call no pooling function, except its pools; anything else might."""
    return is_pool_module(module) or not type(module).__module__.startswith("torch.nn.modules.")
