"""One recorded forward of a model: every pooling call that it makes, and the module that makes it.

The forward runs on a copy on the meta device, so it needs no weights and takes no time; a model that cannot run there
runs on the CPU. A TorchFunctionMode sees the calls, hooks tell whose forward is running, and a TorchDispatchMode
notices the pooling kernels that ran without a call being seen: those inside TorchScript.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from poolswap.errors import InputError, first_line
from poolswap.inputs import Args, Example, fitted, make_inputs
from poolswap.nn.base import WindowPool
from poolswap.surgery.calls import BY_FUNCTION, PoolingCall, call_input, read_call
from poolswap.surgery.mark import replaced_by

_KERNELS = (
    *(f"{op}_pool{d}d" for op in ("max", "avg") for d in (1, 2, 3)),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "mkldnn_max_pool3d"),
)
WINDOW_KERNELS = frozenset(getattr(torch.ops.aten, name) for name in _KERNELS)


@dataclass(frozen=True)
class Event:
    """One pooling call that ran. `index` counts the catalogue's calls of one forward of `owner`, from 0.

    `call` is None where a kernel ran that no call was seen for. `head` says that nothing as large as the input was
    touched afterwards: the call ends the feature maps, where a gate or a normalisation would go on with them.
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
    head: bool


@dataclass(frozen=True)
class Trace:
    """The pooling calls of one forward, in order, and how often each module's forward ran."""

    events: tuple[Event, ...]
    invocations: Mapping[str, int]


@dataclass
class _Frame:
    path: str
    invocation: int
    input_shape: tuple[int, ...]
    calls: int = 0


@dataclass
class _Recording:
    """What the two modes and the hooks write down while the forward runs."""

    stack: list[_Frame] = field(default_factory=list)
    invocations: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)  # per event, how many torch calls had run by its end
    largest: list[int] = field(default_factory=list)  # per torch call, elements of the largest map among its arguments
    inside: int = 0  # depth of calls and modules whose own pooling calls are no sites

    def add(self, index: int, function: str, call: PoolingCall | None, x: Tensor, output: Any) -> None:
        """Write down a pooling call of the module whose forward is running."""
        frame = self.stack[-1]
        pooled = output[0] if isinstance(output, tuple) else output
        self.events.append(
            Event(
                position=len(self.events),
                owner=frame.path,
                invocation=frame.invocation,
                index=index,
                function=function,
                call=call,
                module_input_shape=frame.input_shape,
                input_shape=tuple(x.shape),
                output_shape=tuple(pooled.shape),
                head=True,
            )
        )
        self.moments.append(len(self.largest))

    def trace(self) -> Trace:
        """The finished trace, with `head` decided by what came after each call."""
        later = [0] * (len(self.largest) + 1)
        for moment in range(len(self.largest) - 1, -1, -1):
            later[moment] = max(later[moment + 1], self.largest[moment])
        events = []
        for event, moment in zip(self.events, self.moments, strict=True):
            goes_on = later[moment] >= prod(event.input_shape) and later[moment] > prod(event.output_shape)
            events.append(replace(event, head=not goes_on))
        return Trace(tuple(events), self.invocations)


class _Calls(TorchFunctionMode):
    def __init__(self, recording: _Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Args = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recording = self.recording
        recording.largest.append(max(map(_map_size, _flat((*args, *kwargs.values()))), default=0))
        entry = BY_FUNCTION.get(func)
        if entry is None or recording.inside:
            return func(*args, **kwargs)
        frame = recording.stack[-1]
        index, frame.calls = frame.calls, frame.calls + 1
        call = read_call(entry, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        recording.inside += 1
        try:
            output = func(*args, **kwargs)
        finally:
            recording.inside -= 1
        recording.add(index, entry.name, call, call_input(args, kwargs), output)
        return output


class _Kernels(TorchDispatchMode):
    def __init__(self, recording: _Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Args = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in WINDOW_KERNELS and not self.recording.inside:
            self.recording.add(-1, f"aten.{func.overloadpacket.__name__}", None, args[0], output)
        return output


def probe(model: nn.Module, input_size: Sequence[int], example: Example | None = None) -> tuple[Trace, Trace | None]:
    """(trace in eval mode, trace in train mode or None where the model cannot run it) of copies of the model.

    `input_size` is (C, *spatial), without the batch; `example` replaces the input made from it: a tensor, a sequence of
    positional or a mapping of keyword arguments. The model itself, its mode and torch's generator stay as they are.
    Raises InputError where the forward runs neither on the meta device nor on the CPU.
    """
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluated, device = _run(model, "meta", False, input_size, example), "meta"
        except Exception:
            try:
                evaluated, device = _run(model, "cpu", False, input_size, example), "cpu"
            except Exception as error:
                name = type(model).__name__
                shape = ",".join(map(str, input_size))
                raise InputError(
                    f"{name} cannot run on an input of size {shape}: {first_line(error)}",
                    "give the size it was made for with input_size=(C, H, W), or an example input",
                ) from error
        try:
            trained = _run(model, device, True, input_size, example)
        except Exception:
            trained = None
    return evaluated, trained


def _run(model: nn.Module, device: str, train: bool, input_size: Sequence[int], example: Example | None) -> Trace:
    subject = _copy_to(model, device).train(train)
    args, kwargs = fitted(subject, make_inputs(subject, input_size, 2 if train else 1, device=device, example=example))
    recording = _Recording()
    with torch.no_grad(), _watch(subject, recording), _Kernels(recording), _Calls(recording):
        subject(*args, **kwargs)
    return recording.trace()


@contextmanager
def _watch(model: nn.Module, recording: _Recording) -> Iterator[None]:
    """Hooks that keep `recording.stack` at the modules whose forward is running."""

    def enter(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Args) -> None:
            recording.inside += _is_replacement(module)
            count = recording.invocations.get(path, 0)
            recording.invocations[path] = count + 1
            shape = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ()
            recording.stack.append(_Frame(path, count, shape))

        return hook

    def leave(module: nn.Module, args: Args, output: Any) -> None:
        recording.stack.pop()
        recording.inside -= _is_replacement(module)

    handles = []
    for path, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):  # takes no hooks: its kernels count for its caller
            handles.append(module.register_forward_pre_hook(enter(path)))
            handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_replacement(module: nn.Module) -> bool:
    """Whether the module was swapped in: the pooling calls that it is made of are no sites."""
    return isinstance(module, WindowPool) or replaced_by(module) is not None


def _copy_to(model: nn.Module, device: str) -> nn.Module:
    """A copy on `device` that shares no tensor with the model; weights that are on meta become noise on the CPU."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        moved = _noise_like(tensor) if device == "cpu" and tensor.is_meta else tensor.detach().to(device, copy=True)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(moved, tensor.requires_grad) if is_parameter else moved
    return copy.deepcopy(model, memo)


def _noise_like(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return torch.zeros_like(tensor, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return torch.empty_like(tensor, device="cpu").normal_(std=0.02)
    return torch.ones_like(tensor, device="cpu")


def _flat(values: Sequence[Any]) -> Iterator[Any]:
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
