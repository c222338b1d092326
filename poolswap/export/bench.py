"""How fast a file runs beside the stock model's."""

from __future__ import annotations

import time
from statistics import median

from pydantic import BaseModel, ConfigDict

from poolswap.export.job import Arguments, Runner

ROUNDS = 15


class Speed(BaseModel):
    """Median milliseconds of one run of each, and the median of the ratios of neighbouring runs."""

    model_config = ConfigDict(frozen=True)

    milliseconds: float
    stock_milliseconds: float
    ratio: float


def measure_speed(swapped: Runner, stock: Runner, arguments: Arguments) -> Speed:
    """Runs taken in turns, after one of each to warm up."""
    pairs = [(_seconds(swapped, arguments), _seconds(stock, arguments)) for _ in range(ROUNDS + 1)][1:]
    return Speed(
        milliseconds=1e3 * median(a for a, _ in pairs),
        stock_milliseconds=1e3 * median(b for _, b in pairs),
        ratio=median(a / b for a, b in pairs),
    )


def _seconds(run: Runner, arguments: Arguments) -> float:
    start = time.perf_counter()
    run(arguments)
    return time.perf_counter() - start
