"""What one forward of a model calls: every pooling call, and the module that makes it.

A TorchFunctionMode sees the calls. Every module's forward is shadowed while it is watched, which tells whose code is
running: however it was called, and so that what a hook does is its caller's. A TorchDispatchMode notices the pooling
kernels that ran without a call being seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import unwrap
from math import prod
from threading import get_ident
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode

from poolswap.inputs import Args, tensors_in
from poolswap.nn.base import WindowPool
from poolswap.surgery.calls import BY_FUNCTION, PoolingCall, call_input, is_pool_module, read_call
from poolswap.surgery.idioms import CutMaps
from poolswap.surgery.mark import replaced_by

_KERNELS = (
    *(f"{op}_pool{d}d" for op in ("max", "avg") for d in (1, 2, 3)),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "mkldnn_max_pool3d"),
)
WINDOW_KERNELS = frozenset(getattr(torch.ops.aten, name) for name in _KERNELS)
_COMPARISONS = frozenset(("eq", "ne", "ge", "gt", "le", "lt", "isclose"))


@dataclass(frozen=True)
class Event:
    """One pooling call that ran. `index` counts the catalogue's calls of one forward of `owner`, from 0.

    `call` is None where there is none that could be replaced, and `obstacle` says why. `written_out` marks a pooling
    that is no pooling call of torch at all. `head` says that nothing as large as the input was touched afterwards: the
    call ends the feature maps, where a gate or a normalisation would go on with them. `compared` says that its output
    was compared with something: non-maximum suppression.
    """

    position: int
    owner: str
    invocation: int
    index: int
    function: str
    call: PoolingCall | None
    module_input_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    obstacle: str | None = None
    written_out: bool = False
    head: bool = True
    compared: bool = False


@dataclass(frozen=True)
class Trace:
    """The pooling calls of one forward, in order, and how often each module's forward ran.

    `confused` are modules that call a child's forward without calling the child, whose pooling calls lifting could not
    tell from their own.
    """

    events: tuple[Event, ...]
    invocations: Mapping[str, int]
    confused: frozenset[str] = frozenset()


@dataclass
class _Frame:
    """A forward that is running; the outermost one stands for what runs outside of the model's forward."""

    path: str
    invocation: int = 0
    input_shape: tuple[int, ...] = ()
    outside: bool = False
    direct: bool = False  # forward was called, and not the module
    calls: int = 0


@dataclass
class Recording:
    """What the two modes and the shadowed forwards write down while a model runs."""

    stack: list[_Frame] = field(default_factory=lambda: [_Frame("", outside=True)])
    called: nn.Module | None = None  # the module whose forward comes next
    invocations: dict[str, int] = field(default_factory=dict)
    confused: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)  # per event, how many torch calls had run by its end
    largest: list[int] = field(default_factory=list)  # per torch call, elements of the largest map among its arguments
    suspects: list[tuple[int, Tensor]] = field(default_factory=list)  # (event, output) that a comparison may look at
    compared: set[int] = field(default_factory=set)
    running: list[Callable[..., Any]] = field(default_factory=list)  # functions of torch
    inside: int = 0  # depth of calls and modules whose own pooling calls are no sites
    thread: int = field(default_factory=get_ident)  # modes see the calls of their own thread alone

    def enter(self, path: str, module: nn.Module, args: Args, kwargs: Mapping[str, Any]) -> None:
        """A module's forward begins."""
        self.stack.append(self._frame(path, args, kwargs, direct=self.called is not module))
        self.called = None
        self.inside += _is_replacement(module)

    def leave(self, module: nn.Module) -> None:
        """It has ended."""
        self.stack.pop()
        self.inside -= _is_replacement(module)

    def miss(self, path: str, module: nn.Module, args: Args, kwargs: Mapping[str, Any], output: Any) -> None:
        """A pool ran in another thread, whose calls are not seen."""
        frame = self._frame(path, args, kwargs)
        why = "runs in a thread that the forward starts, where its calls are not seen"
        self._write(frame, -1, type(module).__name__, None, frame.input_shape, next(tensors_in(output)), why)

    def add(
        self,
        index: int,
        function: str,
        call: PoolingCall | None,
        shape: torch.Size,
        output: Any,
        obstacle: str | None = None,
        *,
        written_out: bool = False,
    ) -> None:
        """Write down a pooling call of the module whose forward is running."""
        frame = self.stack[-1]
        pooled = output[0] if isinstance(output, tuple) else output
        if frame.outside:
            obstacle = "runs in a hook of the model itself, outside of its forward"
        elif name := _custom_function():
            obstacle = f"runs inside {name}, a function whose backward was written for this pooling"
        if call is not None and call.picks:
            self.suspects.append((len(self.events), pooled))
        for outer, inner in zip(self.stack[-2::-1], self.stack[:0:-1], strict=True):
            if not inner.direct:
                break
            self.confused.add(outer.path)
        self._write(frame, index, function, call, shape, pooled, obstacle, written_out=written_out)

    def _frame(self, path: str, args: Args, kwargs: Mapping[str, Any], *, direct: bool = False) -> _Frame:
        count = self.invocations.get(path, 0)
        self.invocations[path] = count + 1
        shape = next((tuple(x.shape) for x in tensors_in([*args, *kwargs.values()])), ())
        return _Frame(path, count, shape, direct=direct)

    def _write(
        self,
        frame: _Frame,
        index: int,
        function: str,
        call: PoolingCall | None,
        shape: tuple[int, ...],
        pooled: Tensor,
        obstacle: str | None,
        *,
        written_out: bool = False,
    ) -> None:
        self.events.append(
            Event(
                position=len(self.events),
                owner=frame.path,
                invocation=frame.invocation,
                index=index,
                function=function,
                call=call,
                module_input_shape=frame.input_shape,
                input_shape=tuple(shape),
                output_shape=tuple(pooled.shape),
                obstacle=obstacle,
                written_out=written_out,
            )
        )
        self.moments.append(len(self.largest))

    def compare(self, values: list[Any]) -> None:
        """Two values are compared: is one of them, or what it is a view of, the output of a pooling?"""
        for number, output in self.suspects:
            if any(value is output or (isinstance(value, Tensor) and value._base is output) for value in values):
                self.compared.add(number)

    def trace(self) -> Trace:
        """The finished trace, with `head` decided by what came after each call."""
        later = [0] * (len(self.largest) + 1)
        for moment in range(len(self.largest) - 1, -1, -1):
            later[moment] = max(later[moment + 1], self.largest[moment])
        events = []
        for number, (event, moment) in enumerate(zip(self.events, self.moments, strict=True)):
            goes_on = later[moment] >= prod(event.input_shape) and later[moment] > prod(event.output_shape)
            events.append(replace(event, head=not goes_on, compared=number in self.compared))
        return Trace(tuple(events), self.invocations, frozenset(self.confused))


def record(model: nn.Module, args: Args, kwargs: Mapping[str, Any]) -> Trace:
    """The trace of model(*args, **kwargs), without gradients. The model is watched itself, and left as it was."""
    recording = Recording()
    with torch.no_grad(), _watched(model, recording), _Kernels(recording), _SeenCalls(recording):
        model(*args, **kwargs)
    return recording.trace()


class _SeenCalls(TorchFunctionMode):
    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording
        self.windows = CutMaps()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Args = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recording = self.recording
        recording.largest.append(max(map(_map_size, _flat((*args, *kwargs.values()))), default=0))
        entry = BY_FUNCTION.get(func)
        if recording.inside or entry is None:
            return self._run(func, args, kwargs)
        frame = recording.stack[-1]
        index, frame.calls = frame.calls, frame.calls + 1
        try:
            call, obstacle = read_call(entry, args, kwargs), None
        except ValueError as error:
            call, obstacle = None, f"takes arguments that no operator does: {error}"
        if call is None and obstacle is None:
            return self._run(func, args, kwargs)
        recording.inside += 1
        try:
            output = func(*args, **kwargs)
        finally:
            recording.inside -= 1
        x = call_input(args, kwargs)
        if not x.is_floating_point():
            obstacle = f"pools a map of {x.dtype}, and operators take floating point"
        recording.add(index, entry.name, call, x.shape, output, obstacle)
        return output

    def _run(self, func: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
        """Any other function of torch: it may make kernels run, compare, or be part of a written out pooling."""
        recording = self.recording
        recording.running.append(func)
        try:
            output = func(*args, **kwargs)
        finally:
            recording.running.pop()
        name = getattr(func, "__name__", "").strip("_")
        if recording.inside:
            return output
        if name in _COMPARISONS:
            recording.compare([*args, *kwargs.values()])
        if func is F.interpolate and kwargs.get("mode", args[3] if len(args) > 3 else None) == "area":
            why = "is area interpolation: its windows follow the size that it is asked for"
            recording.add(
                -1, "F.interpolate(area)", None, call_input(args, kwargs).shape, output, why, written_out=True
            )
        if found := self.windows.see(name, args, kwargs, output):
            why = f"is written out as {found.how}, and is no pooling call"
            recording.add(-1, f"Tensor.{name}", None, found.shape, output, why, written_out=True)
        return output


class _Kernels(TorchDispatchMode):
    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Args = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in WINDOW_KERNELS and not self.recording.inside:
            name, running = func.overloadpacket.__name__, self.recording.running
            why = (
                f"is part of {_name_of(running[-1])}, which is none of torch's plain pooling functions"
                if running
                else "runs below Python, inside TorchScript or C++, where no call can be replaced"
            )
            self.recording.add(-1, f"aten.{name}", None, args[0].shape, output, why)
        return output


@contextmanager
def _watched(model: nn.Module, recording: Recording) -> Iterator[None]:
    """Shadow the forward of every module, so that the recording's stack knows whose is running."""

    def announce(module: nn.Module, args: Args) -> None:
        recording.called = module

    shadowed, handles = [], []
    for path, module in model.named_modules():
        # A scripted module takes no hooks: its kernels count for its caller. A compiled one only calls another.
        if isinstance(module, (torch.jit.ScriptModule, OptimizedModule)):
            continue
        handles.append(module.register_forward_pre_hook(announce))
        shadowed.append((module, vars(module).get("forward")))
        vars(module)["forward"] = _framed(recording, path, module, module.forward)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, own in shadowed:
            if own is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = own


def _framed(recording: Recording, path: str, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    pools = is_pool_module(module)

    @wraps(forward)
    def framed(*args: Any, **kwargs: Any) -> Any:
        if get_ident() != recording.thread:
            output = forward(*args, **kwargs)
            if pools:
                recording.miss(path, module, args, kwargs, output)
            return output
        recording.enter(path, module, args, kwargs)
        try:
            return forward(*args, **kwargs)
        finally:
            recording.leave(module)

    return framed


def _is_replacement(module: nn.Module) -> bool:
    """Whether the module was swapped in: the pooling calls that it is made of are no sites."""
    return isinstance(module, WindowPool) or replaced_by(module) is not None


def _custom_function() -> str | None:
    """Name of the user's autograd function whose forward is running, if one is.

    torch's own checkpoints are such functions too, and compute their gradient from the modules again.
    """
    forwards = {
        getattr(unwrap(cls.forward), "__code__", None): cls.__name__
        for cls in _subclasses(torch.autograd.Function)
        if cls.__module__ != checkpoint.__name__
    }
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in forwards:
            return forwards[frame.f_code]
        frame = frame.f_back
    return None


def _name_of(func: Callable[..., Any]) -> str:
    return resolve_name(func) or f"{func.__module__}.{func.__name__}"


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _flat(values: Args) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _map_size(value: Any) -> int:
    """Elements of a feature map of four or more dimensions; 0 for weights and everything else."""
    if isinstance(value, Tensor) and value.dim() >= 4 and not isinstance(value, nn.Parameter):
        return value.numel()
    return 0
