"""What a swap costs: time and memory of a batch, the two models measured in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from poolswap.inputs import Inputs, evaluating, fitted, floating_tensor, seeded_inputs

_ROUNDS = 30
_SECONDS = 3.0


class Costs(NamedTuple):
    """Seconds of one forward in eval mode, and the most bytes that a forward and backward held at once."""

    latency: float
    memory: int


def compare_costs(
    stock: nn.Module, swapped: nn.Module, input_size: Sequence[int], *, batch: int
) -> tuple[Costs, Costs]:
    """(stock's, swapped's) costs on the same seeded batch, on the models' device.

    The models take turns, so that what else the machine does falls on both; the shortest round counts.
    """
    inputs = fitted(stock, seeded_inputs(stock, input_size, seed=0, batch=batch))
    models = (stock, swapped)
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    with evaluating(stock), evaluating(swapped), torch.inference_mode():
        for model in models:
            _seconds(model, inputs)
        while len(times[0]) < 3 or (len(times[0]) < _ROUNDS and time.perf_counter() - start < _SECONDS):
            for model, seen in zip(models, times, strict=True):
                seen.append(_seconds(model, inputs))
    first, second = (Costs(min(seen), _memory(model, inputs)) for model, seen in zip(models, times, strict=True))
    return first, second


def _seconds(model: nn.Module, inputs: Inputs) -> float:
    args, kwargs = inputs
    start = time.perf_counter()
    model(*args, **kwargs)
    _wait(model)
    return time.perf_counter() - start


def _memory(model: nn.Module, inputs: Inputs) -> int:
    """Peak of the bytes that tensors take beyond the model's own, gradients of the weights included."""
    like = floating_tensor(model)
    with evaluating(model):
        if like is not None and like.is_cuda:
            torch.cuda.reset_peak_memory_stats(like.device)
            before = torch.cuda.memory_allocated(like.device)
            _step(model, inputs)
            return torch.cuda.max_memory_allocated(like.device) - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            _step(model, inputs)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _step(model: nn.Module, inputs: Inputs) -> None:
    args, kwargs = inputs
    outputs = [leaf for leaf in tree_leaves(model(*args, **kwargs)) if isinstance(leaf, torch.Tensor)]
    total = sum((leaf.float().sum() for leaf in outputs if leaf.requires_grad), torch.zeros(()))
    if total.requires_grad:
        total.backward()
    model.zero_grad(set_to_none=True)
    _wait(model)


def _wait(model: nn.Module) -> None:
    like = floating_tensor(model)
    if like is not None and like.is_cuda:
        torch.cuda.synchronize(like.device)
