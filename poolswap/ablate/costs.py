"""What a swap costs: time and memory of a batch, the two models measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from poolswap.inputs import Inputs, evaluating, fitted, floating_tensor, seeded_inputs
from poolswap.measure import interleave, peak_tensor_bytes
from poolswap.measure.passes import forward_backward

_ROUNDS = 30
_SECONDS = 3.0


class Costs(NamedTuple):
    """Seconds of one forward in eval mode, and the most bytes that a forward and backward held at once."""

    latency: float
    memory: int


def compare_costs(
    stock: nn.Module, swapped: nn.Module, input_size: Sequence[int], *, batch: int
) -> tuple[Costs, Costs]:
    """(stock's, swapped's) costs on the same seeded batch, on the models' device; the shortest round counts."""
    inputs = fitted(stock, seeded_inputs(stock, input_size, seed=0, batch=batch))
    like = floating_tensor(stock)
    device = torch.device("cpu") if like is None else like.device
    models = {"stock": stock, "swapped": swapped}
    with evaluating(stock), evaluating(swapped):
        with torch.inference_mode():
            calls = {name: partial(_forward, model, inputs) for name, model in models.items()}
            rounds = interleave(calls, _ROUNDS, warmup=1, device=device, limit=_SECONDS)
        memory = {name: _memory(model, inputs, device) for name, model in models.items()}
    first, second = (Costs(1e-3 * rounds.timing(name).fastest, memory[name]) for name in models)
    return first, second


def _forward(model: nn.Module, inputs: Inputs) -> None:
    args, kwargs = inputs
    model(*args, **kwargs)


def _memory(model: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """Beyond what the model itself takes, gradients of the weights included."""
    peak = peak_tensor_bytes(partial(forward_backward, model, inputs), device)
    model.zero_grad(set_to_none=True)
    return peak
