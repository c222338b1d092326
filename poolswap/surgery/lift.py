"""A functional pooling call -> a named child module of its owner.

The owner's class becomes a generated subclass whose forward runs the original one under a TorchFunctionMode. The mode
counts the owner's own calls of pooling functions and hands each lifted one to the child that stands for it. So the
owner keeps its Python: branches, lists, dropout. isinstance, deepcopy, torch.compile and torch.export keep working.

Entered by another method than forward, an owner cannot count. There a call goes to the child that forward gave the
same place in the source, which every forward learns; where that is not one child, the call is refused.

Which calls are the owner's own is decided by hooks on the modules below it: while one of them runs, every call is its
own. The hooks hold no state; they find the modes on the thread's own stack, so copies and threads do not mix.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from inspect import iscoroutinefunction, isgeneratorfunction
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import checkpoint

from poolswap.errors import CheckError, InputError
from poolswap.nn.base import tracer_of
from poolswap.surgery.calls import BY_FUNCTION, PoolingCall, StockPool, call_input, is_pool_module, read_call
from poolswap.surgery.sites import PoolSite

# Of a call in the source: file, first line of the function, instruction.
Place = tuple[str, int, int]


class LiftError(CheckError):
    """A lifted owner pools in a way that its children cannot stand for."""


@dataclass(frozen=True)
class _Lifting:
    """What a lifted owner knows: by mode, which child each of its own calls goes to; by child, the windows found."""

    calls: Mapping[bool, Mapping[int, str]]
    found: Mapping[str, PoolingCall | None]  # None where the whole map is pooled, whatever its size
    places: dict[Place, set[str | None]] = field(default_factory=dict)  # whose calls forward makes there
    modes: set[bool] = field(default_factory=set)  # those in which forward has shown its places

    def knows(self, training: bool) -> bool:
        """Whether a forward in this mode, or in one that makes the same calls, has shown its places."""
        return training in self.modes or (bool(self.modes) and self.calls[True] == self.calls[False])


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
    cls = type(owner).__mro__[1]
    if type(owner) is _lifted_classes.get(cls):
        owner.__class__ = cls
    if set(_lifted_classes.values()).isdisjoint(type(owner).__mro__):
        del vars(owner)["_lifting"]
    else:  # a parametrization or a wrapper has made a class of its own of the lifted one
        vars(owner)["_lifting"] = None


def is_lifted(module: nn.Module) -> bool:
    """Whether the module's functional pooling calls run through children."""
    return module.__dict__.get("_lifting") is not None  # torch 2.7 compiles no vars()


def watch(model: nn.Module) -> None:
    """Hook every module below a lifted owner that may call pooling functions itself; again after modules changed."""
    for owner in model.modules():
        if is_lifted(owner):
            for module in owner.modules():
                if module is not owner and _may_pool(module) and _enter not in module._forward_pre_hooks.values():
                    module.register_forward_pre_hook(_enter)
                    # First, for what a hook calls is the owner's own; always, for the owner may catch what is raised.
                    module.register_forward_hook(_leave, prepend=True, always_call=True)


def unwatch(model: nn.Module) -> None:
    """Remove the hooks of `watch` from modules that no lifted owner is above of."""
    below = {module for owner in model.modules() if is_lifted(owner) for module in owner.modules()}
    for module in model.modules():
        if module not in below:
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if hook in (_enter, _leave)]:
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)


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
    @wraps(cls.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if (tracer := tracer_of(args, kwargs)) is not None:
            return _call_in_graph(self, tracer, args, kwargs)
        if not is_lifted(self):
            if "_lifting" in self.__dict__:  # it was, and came back
                return cls.forward(self, *args, **kwargs)
            raise LiftError(
                f"this {cls.__name__} was made by the class of a swapped one, and is not swapped itself",
                "slice and make models before the swap, or restore() first",
            )
        with _OwnCalls(self):
            return cls.forward(self, *args, **kwargs)

    def reduce(self: nn.Module) -> tuple[Any, ...]:
        return _rebuild, (cls,), self.__getstate__()

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    entries = {name: _entered(method) for name, method in _entries(cls)}
    body = {**entries, **_iteration(cls), **names, "forward": forward, "__reduce__": reduce}
    return type(cls.__name__, (cls,), body)


def _iteration(cls: type[nn.Module]) -> dict[str, Callable[..., Any]]:
    """Of a container: over the children that it had, for its forward goes through them."""

    def own(self: nn.Module) -> dict[str, nn.Module | None]:
        added = _lifting_of(self).found if is_lifted(self) else ()
        return {name: child for name, child in self._modules.items() if name not in added}

    methods: dict[str, Callable[..., Any]] = {"__len__": lambda self: len(own(self))}
    if issubclass(cls, (nn.Sequential, nn.ModuleList)):
        return {**methods, "__iter__": lambda self: iter(own(self).values())}
    if issubclass(cls, nn.ModuleDict):
        views = {name: lambda self, name=name: getattr(own(self), name)() for name in ("keys", "items", "values")}
        return {**methods, **views, "__iter__": lambda self: iter(own(self))}
    return {}


def _call_in_graph(owner: nn.Module, tracer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One call of the whole owner: torch.fx sees neither its sizes nor its x.mean(), so its calls cannot be counted."""
    if owner is tracer.root:
        raise LiftError(
            f"{type(owner).__name__} pools by function calls of its own, which torch.fx cannot hand to its children: "
            f"trace torch.nn.Sequential(model), which calls it as a whole, or use torch.export"
        )
    return tracer.create_proxy("call_module", tracer.path_of_module(owner), args, kwargs)


def _entries(cls: type[nn.Module]) -> Iterator[tuple[str, FunctionType]]:
    """The methods by which the user's own code may enter an owner, beside forward."""
    for name in dict.fromkeys(name for base in cls.__mro__ for name in vars(base)):
        base = next(base for base in cls.__mro__ if name in vars(base))
        method = vars(base)[name]
        usual = hasattr(nn.Module, name) or base.__module__.startswith("torch.")
        lazy = isgeneratorfunction(method) or iscoroutinefunction(method)
        if isinstance(method, FunctionType) and not (usual or lazy or name.startswith("__")):
            yield name, method


def _entered(method: FunctionType) -> Callable[..., Any]:
    @wraps(method)
    def entered(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = any(isinstance(mode, _Calls) and not mode.below for mode in _get_current_function_mode_stack())
        if own or not is_lifted(self):
            return method(self, *args, **kwargs)
        with _CallsFromElsewhere(self, method.__name__):
            return method(self, *args, **kwargs)

    return entered


def _rebuild(cls: type[nn.Module]) -> nn.Module:
    """An empty lifted instance, for copying and pickling: the generated class itself cannot be imported."""
    lifted = _lifted_class(cls)
    return lifted.__new__(lifted)


class _Calls(TorchFunctionMode):
    """Hands the owner's own pooling calls to its children; a subclass says which call is whose."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner
        self.lifting = _lifting_of(owner)
        self.below: list[nn.Module] = []  # modules below the owner that are running

    def child_name(self) -> str | None:
        """The child that this call goes to; None for a call that stays."""
        raise NotImplementedError

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
        name = self.child_name()
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
        found = self.lifting.found[name] if name else None
        whole = call is None or call.geometry is None or call.covers(call_input(args, kwargs).shape)
        if call == found or (whole and found is None):
            return
        mode = "train" if self.owner.training else "eval"
        raise LiftError(
            f"{type(self.owner).__name__} pools with {_said(call)} in {mode} mode where {_said(found)} was found: "
            f"its calls depend on its input, or on what a hook or closure holds, so it cannot be lifted",
            "exclude= leaves its sites as they are",
        )


class _OwnCalls(_Calls):
    """Of one forward: by their number in it."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__(owner)
        self.names = self.lifting.calls[owner.training]
        self.index = 0
        if not torch.compiler.is_compiling():
            self.lifting.modes.add(owner.training)

    def child_name(self) -> str | None:
        """As counted; the place is kept for `_CallsFromElsewhere`."""
        name = self.names.get(self.index)
        self.index += 1
        if not torch.compiler.is_compiling():
            self.lifting.places.setdefault(_place(), set()).add(name)
        return name


class _CallsFromElsewhere(_Calls):
    """Of another method, called from outside of forward: by their places, which forward has shown."""

    def __init__(self, owner: nn.Module, method: str) -> None:
        super().__init__(owner)
        self.method = f"{type(owner).__name__}.{method}"

    def child_name(self) -> str | None:
        """The one child whose call forward makes at this place."""
        if torch.compiler.is_compiling():
            raise LiftError(f"{self.method} pools, and is compiled by itself: compile the whole module instead")
        names = self.lifting.places.get(_place())
        if names is None and not self.lifting.knows(self.owner.training):
            mode = "train" if self.owner.training else "eval"
            raise LiftError(f"{self.method} pools before any forward in {mode} mode: call the module itself once")
        if names is not None and len(names) > 1:
            several = ", ".join(sorted(name or "a call that stays" for name in names))
            raise LiftError(
                f"{self.method} pools where forward makes several calls ({several}): call the module itself"
            )
        return next(iter(names)) if names else None


def _place() -> Place:
    """Where the user's code makes the call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, __file__)):
        frame = frame.f_back
    assert frame is not None
    return frame.f_code.co_filename, frame.f_code.co_firstlineno, frame.f_lasti


_TORCH = str(Path(torch.__file__).parent)


def _said(call: PoolingCall | None) -> str:
    if call is None:
        return "no window"
    indices = " with indices" if call.returns_indices else ""
    divisor = "" if call.divisor_override is None else f" divided by {call.divisor_override}"
    return f"{call.op}_pool{call.dims}d {call}{indices}{divisor}"


def _in_checkpoint() -> bool:
    """Whether torch.utils.checkpoint stands between the running lifted forward and this call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == checkpoint.__file__:
            return True
        if code.co_filename == __file__ and code.co_name in ("forward", "entered"):
            return False
        frame = frame.f_back
    return False


def _enter(module: nn.Module, args: Any) -> None:
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, _Calls):
            mode.below.append(module)


def _leave(module: nn.Module, args: Any, output: Tensor) -> None:
    for mode in _get_current_function_mode_stack():
        if isinstance(mode, _Calls) and mode.below and mode.below[-1] is module:  # else it raised before it began
            mode.below.pop()


def _may_pool(module: nn.Module) -> bool:
    """torch's own layers call no pooling function, except its pools, nor does TorchScript; anything else might."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    return is_pool_module(module) or not type(module).__module__.startswith("torch.nn.modules.")
