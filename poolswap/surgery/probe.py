"""One recorded forward of a model: every pooling call that it makes, and the module that makes it.

The forward runs on a copy on the meta device, so it needs no weights and takes no time; a model that cannot run there
runs on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from poolswap.budget import Meter, TooLargeError
from poolswap.errors import InputError, first_line
from poolswap.inputs import Example, fitted, make_inputs, tensors_in, unnoticed
from poolswap.surgery.recording import Trace, record


def probe(model: nn.Module, input_size: Sequence[int], example: Example | None = None) -> tuple[Trace, Trace | None]:
    """(trace in eval mode, trace in train mode or None where the model cannot run it) of copies of the model.

    `input_size` is (C, *spatial), without the batch; `example` replaces the input made from it: a tensor, a sequence of
    positional or a mapping of keyword arguments. The model itself, its mode and torch's generator stay as they are.
    Raises InputError where the forward runs neither on the meta device nor on the CPU, TooLargeError where it would
    take more than `poolswap.budget` allows.
    """
    if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
        raise InputError("the model has lazy layers, which know no shapes yet", "run it once on an input of its size")
    with unnoticed():  # a forward that draws which way it takes has the same sites every time
        try:
            with Meter():
                evaluated, device = _run(model, "meta", False, input_size, example), "meta"
        except TooLargeError:
            raise
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


def run_layers(
    model: nn.Module, input_size: Sequence[int], example: Example | None, paths: Iterable[str]
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """(path, input shape, output shape) of every call of the modules at `paths`, by one forward in eval mode of a copy.

    Runs as `probe` does.
    """
    wanted = set(paths)
    with unnoticed():
        for device in ("meta", "cpu"):
            seen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
            subject = _copy_to(model, device).eval()
            for path, module in subject.named_modules():
                if path in wanted:
                    module.register_forward_hook(_noting(path, seen), with_kwargs=True)
            args, kwargs = fitted(subject, make_inputs(subject, input_size, 1, device=device, example=example))
            try:
                with torch.no_grad():
                    subject(*args, **kwargs)
            except Exception:
                if device == "cpu":
                    raise
                continue
            break
    return seen


def _noting(path: str, seen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x, y = (next(tensors_in(value)) for value in ([*args, *kwargs.values()], output))
        seen.append((path, tuple(x.shape), tuple(y.shape)))

    return hook


def rehearse(model: nn.Module, input_size: Sequence[int], batch: int, example: Example | None = None) -> None:
    """One forward in eval mode of a copy on the meta device, where it takes no memory.

    Raises TooLargeError where it would take more than `poolswap.budget` allows. A model that cannot run there passes.
    """
    with unnoticed(), torch.no_grad():
        try:
            subject = _copy_to(model, "meta").eval()
            args, kwargs = fitted(subject, make_inputs(subject, input_size, batch, device="meta", example=example))
            with Meter():
                subject(*args, **kwargs)
        except TooLargeError:
            raise
        except Exception:
            return


def _run(model: nn.Module, device: str, train: bool, input_size: Sequence[int], example: Example | None) -> Trace:
    subject = _copy_to(model, device).train(train)
    args, kwargs = fitted(subject, make_inputs(subject, input_size, 2 if train else 1, device=device, example=example))
    return record(subject, args, kwargs)


def _copy_to(model: nn.Module, device: str) -> nn.Module:
    """A copy on `device` that shares no tensor with the model; weights that are on meta become noise on the CPU."""
    memo: dict[int, Any] = {}
    held = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    for tensor in (*model.parameters(), *model.buffers(), *held):  # weight_norm's weight is neither
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
