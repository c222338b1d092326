"""Whole models: the original against the swapped one, forward and in a training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from poolswap.bench.values import network_input
from poolswap.inputs import Inputs
from poolswap.load import load_model
from poolswap.measure import Timing, interleave, peak_memory
from poolswap.measure.passes import Direction, forward_backward
from poolswap.ops.layout import CHANNELS_LAST
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

Layout = Literal["contiguous", "channels_last"]


@dataclass(frozen=True)
class ModelRow:
    """Original and swapped at one batch size: `forward` is eval mode without gradients, `training` a step of SGD.

    The input is filled with `values` of `poolswap.bench.values`. `ratio` is the swapped model's time over the
    original's, the median of the rounds' own. The peaks are None where they cannot be measured.
    """

    model: str
    batch_size: int
    layout: Layout
    values: str
    direction: Direction
    replaced: int
    original: Timing
    swapped: Timing
    ratio: float
    original_peak_bytes: int | None
    swapped_peak_bytes: int | None


def bench_model(
    reference: str,
    batch_sizes: Sequence[int] = (1, 8),
    *,
    layers: str = "all",
    layouts: Sequence[Layout] = ("contiguous", "channels_last"),
    device: str = "cpu",
    repeats: int = 15,
    memory: bool = True,
    trust_code: bool = False,
    progress: Callable[[int], None] = lambda steps: None,
) -> list[ModelRow]:
    """Time a model with random weights before and after `swap_pools(layers)`, on "cpu" or "cuda".

    Its input is photographs of scikit-image, where that is installed and the model takes RGB pictures, else N(0, 1).
    `trust_code` is for a checkpoint whose model is made by a user's file. `progress` is called with 1 after each batch
    size and layout. Raises NothingToReplaceError where the model has no pooling site that `layers` selects.
    """
    original, spec = load_model(reference, device=device, trust_code=trust_code)
    swapped = deepcopy(original)
    report = swap_pools(swapped, make_plan(find_pools(original, spec.input_size), layers=layers))
    rows: list[ModelRow] = []
    for layout in layouts:
        dims = len(spec.input_size) + 1
        form = CHANNELS_LAST[dims] if layout == "channels_last" else torch.contiguous_format
        models = {"original": original.to(memory_format=form), "swapped": swapped.to(memory_format=form)}
        for batch_size in batch_sizes:
            torch.manual_seed(0)
            values, x = network_input((batch_size, *spec.input_size))
            x = x.to(device).contiguous(memory_format=form)
            for direction, prepare in _DIRECTIONS.items():
                calls = {name: prepare(model, ((x,), {})) for name, model in models.items()}
                for call in calls.values():
                    call()
                peaks = {name: peak_memory(call, device) if memory else None for name, call in calls.items()}
                rounds = interleave(calls, repeats, warmup=1, device=device)
                rows.append(
                    ModelRow(
                        model=spec.reference,
                        batch_size=batch_size,
                        layout=layout,
                        values=values,
                        direction=direction,
                        replaced=len(report.swapped),
                        original=rounds.timing("original"),
                        swapped=rounds.timing("swapped"),
                        ratio=rounds.ratio("swapped", "original").median,
                        original_peak_bytes=peaks["original"],
                        swapped_peak_bytes=peaks["swapped"],
                    )
                )
            progress(1)
    return rows


def _forward(model: nn.Module, inputs: Inputs) -> Callable[[], None]:
    def run() -> None:
        model.eval()
        with torch.inference_mode():
            model(*inputs[0])

    return run


def _training(model: nn.Module, inputs: Inputs) -> Callable[[], None]:
    """Forward, backward and a step, too small to move the weights off their range."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

    def run() -> None:
        model.train()
        forward_backward(model, inputs)
        optimizer.step()

    return run


_DIRECTIONS: dict[Direction, Callable[[nn.Module, Inputs], Callable[[], None]]] = {
    "forward": _forward,
    "training": _training,
}
