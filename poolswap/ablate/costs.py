"""What a swap costs: time and memory of real images, swapped, control and control again measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from statistics import median

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from poolswap.inputs import Inputs, fitted
from poolswap.measure import Ratio, interleave, peak_tensor_bytes
from poolswap.measure.passes import Direction, forward_backward

PASSES = ("forward", "forward_one", "training", "training_one")
_ROUNDS = 30
_SECONDS = 1.0


class PassCost(BaseModel):
    """One pass of the swapped model and of the control: `forward` in eval mode, `training` with the backward pass.

    `ratio` is the swapped model's time over the control's, `noise` the control's over its own, measured in the same
    rounds. Bytes are the most that the pass's tensors held at once.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    direction: Direction
    batch: int = Field(gt=0)
    milliseconds: float = Field(gt=0)
    ratio: Ratio
    noise: Ratio
    memory: int = Field(ge=0)
    control_memory: int = Field(ge=0)


class PooledCost(BaseModel):
    """One architecture's cost of a pass, over all trials that measured it: an adaptation changes no time.

    `ratio` is the median of the trials', `low` and `high` are the ends of their quartiles. A ratio closer to 1 than
    `noise` is none: so far was the control from itself.
    """

    model_config = ConfigDict(frozen=True)

    milliseconds: float
    ratio: float
    low: float
    high: float
    noise: float
    mebibytes: float
    memory_ratio: float | None

    @classmethod
    def of(cls, costs: Sequence[PassCost]) -> PooledCost:
        """The costs of one pass in one or more trials."""
        return cls(
            milliseconds=median(cost.milliseconds for cost in costs),
            ratio=median(cost.ratio.median for cost in costs),
            low=min(cost.ratio.low for cost in costs),
            high=max(cost.ratio.high for cost in costs),
            noise=max(abs(end - 1) for cost in costs for end in (cost.noise.low, cost.noise.high)),
            mebibytes=costs[0].memory / 2**20,
            memory_ratio=costs[0].memory / costs[0].control_memory if costs[0].control_memory else None,
        )


def pool(each: Iterable[Sequence[PassCost]]) -> dict[str, PooledCost]:
    """The costs of one architecture's trials, by pass: `forward` and `training`, and with `_one` those of one image."""
    found: dict[str, list[PassCost]] = {}
    for costs in each:
        largest = max((cost.batch for cost in costs), default=0)
        for cost in costs:
            found.setdefault(cost.direction + ("_one" if cost.batch < largest else ""), []).append(cost)
    return {name: PooledCost.of(costs) for name, costs in found.items()}


def compare_costs(stock: nn.Module, swapped: nn.Module, images: Tensor) -> tuple[PassCost, ...]:
    """The costs of one image and of the batch `images`, in both directions, on the models' device.

    The models and torch's generator stay as they are. A training pass of one image is left out where the model cannot
    take it, as behind a BatchNorm of one value a channel.
    """
    models = {"swapped": deepcopy(swapped), "stock": deepcopy(stock)}
    args, _ = fitted(stock, ((images,), {}))
    device = args[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return tuple(_costs(models, args[0], device))


def _costs(models: dict[str, nn.Module], images: Tensor, device: torch.device) -> Iterator[PassCost]:
    for direction, run in _RUNS.items():
        for batch in dict.fromkeys((1, len(images))):
            inputs: Inputs = ((images[:batch],), {})
            calls = {name: partial(run, model.train(direction == "training"), inputs) for name, model in models.items()}
            try:
                calls["stock"]()
            except ValueError:
                if batch > 1 or direction == "forward":
                    raise
                continue
            rounds = interleave({**calls, "again": calls["stock"]}, _ROUNDS, warmup=1, device=device, limit=_SECONDS)
            memory = {name: peak_tensor_bytes(call, device) for name, call in calls.items()}
            yield PassCost(
                direction=direction,
                batch=batch,
                milliseconds=rounds.timing("swapped").median,
                ratio=rounds.ratio("swapped", "stock"),
                noise=rounds.ratio("again", "stock"),
                memory=memory["swapped"],
                control_memory=memory["stock"],
            )


def _forward(model: nn.Module, inputs: Inputs) -> None:
    with torch.inference_mode():
        model(*inputs[0])


def _training(model: nn.Module, inputs: Inputs) -> None:
    forward_backward(model, inputs)
    model.zero_grad(set_to_none=True)


_RUNS: dict[Direction, Callable[[nn.Module, Inputs], None]] = {"forward": _forward, "training": _training}
