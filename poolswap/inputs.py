"""What to feed a model that one knows only the input size of, and what to make of its outputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.models.detection.transform import GeneralizedRCNNTransform

Args = tuple[Any, ...]
Inputs = tuple[Args, dict[str, Any]]
Example = Tensor | Sequence[Any] | Mapping[str, Any]

# Elements of one input: far above any real one, far below what a hostile file could ask for.
LARGEST_INPUT = 2**28


def make_inputs(
    model: nn.Module,
    input_size: Sequence[int],
    batch: int,
    *,
    device: torch.device | str = "cpu",
    example: Example | None = None,
) -> Inputs:
    """(args, kwargs) for model(*args, **kwargs): standard normal noise of size (batch, *input_size), or `example`.

    torchvision's detection models take a list of images in [0, 1) instead of a batch. Raises ValueError for a size that
    no model takes.
    """
    if batch * math.prod(input_size) > LARGEST_INPUT:
        raise ValueError(f"an input of size {tuple(input_size)} is too large")
    if example is None:
        if isinstance(getattr(model, "transform", None), GeneralizedRCNNTransform):
            return ([torch.rand(*input_size, device=device) for _ in range(batch)],), {}
        return (torch.randn(batch, *input_size, device=device),), {}
    moved = tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, _plain(example))
    if isinstance(moved, dict):
        return (), moved
    return ((moved,) if isinstance(moved, Tensor) else tuple(moved)), {}


def _plain(value: Any) -> Any:
    """Mappings of any class, as tokenizers and image processors give them, become the dicts that torch looks into."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def seeded_inputs(
    model: nn.Module, input_size: Sequence[int], *, seed: int, batch: int, example: Example | None = None
) -> Inputs:
    """`make_inputs` on the CPU from `seed`, the same on every machine; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_inputs(model, input_size, batch, example=example)


def outputs_of(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Every floating point output of one forward, the inputs moved to the model's device and dtype."""
    return [tensor for tensor in all_outputs_of(model, inputs) if tensor.is_floating_point()]


def all_outputs_of(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Every tensor that one forward gives, integers and booleans too.

    Where there are some, and all are empty, as of a detector that found no box, what its children gave comes with them.
    """
    args, kwargs = fitted(model, inputs)
    inner: list[Tensor] = []
    children = (child for child in model.children() if not isinstance(child, torch.jit.ScriptModule))  # takes no hook
    keep = [child.register_forward_hook(lambda *call: inner.extend(tensors_in(call[-1]))) for child in children]
    try:
        with torch.no_grad():
            outputs = list(map(_dense, tensors_in(model(*args, **kwargs))))
    finally:
        for handle in keep:
            handle.remove()
    return outputs if any(output.numel() for output in outputs) or not outputs else [*outputs, *inner]


def _dense(output: Tensor) -> Tensor:
    """A sparse, nested or quantised output in full, so that its values can be compared."""
    if output.is_quantized:
        return output.dequantize()
    if output.layout is torch.strided and not output.is_nested:
        return output
    full: Tensor = torch.nested.to_padded_tensor(output, 0.0) if output.is_nested else output.to_dense()
    return full


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in an output, in order, each once: in containers, dataclasses, and objects that hold attributes.

    Modules are not looked into: an output that refers to its model does not give its weights.
    """
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, nn.Module) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        else:
            waiting.extend(reversed(list(_parts(item))))


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    slots = (name for cls in type(value).__mro__ for name in _names(vars(cls).get("__slots__", ())))
    held = {**{name: getattr(value, name, None) for name in slots}, **getattr(value, "__dict__", {})}
    return held.values()


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def floating_tensor(model: nn.Module) -> Tensor | None:
    """The first floating point parameter or buffer, which tells the model's device and dtype; None without any."""
    return next((t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()), None)


def fitted(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs on the model's device, floating point ones in its dtype."""
    like = floating_tensor(model)
    like = torch.empty(0) if like is None else like

    def send(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(like.device, like.dtype if value.is_floating_point() else None)

    moved: Inputs = tree_map(send, inputs)
    return moved


@contextmanager
def unnoticed() -> Iterator[None]:
    """For a forward that the user did not ask for: eager and silent, with draws that are the same every time.

    torch's generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reseed the GPUs too
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the length of a with block; every module's own mode is put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
