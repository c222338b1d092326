"""How fast a file runs beside the stock model's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from poolswap.export.job import Arguments, Runner
from poolswap.measure import interleave

ROUNDS = 15


class Speed(BaseModel):
    """Median milliseconds of one run of each, and the median of the ratios of neighbouring runs."""

    model_config = ConfigDict(frozen=True)

    milliseconds: float
    stock_milliseconds: float
    ratio: float


def measure_speed(swapped: Runner, stock: Runner, arguments: Arguments) -> Speed:
    """Runs taken in turns, after one of each to warm up."""
    rounds = interleave({"swapped": lambda: swapped(arguments), "stock": lambda: stock(arguments)}, ROUNDS, warmup=1)
    return Speed(
        milliseconds=rounds.timing("swapped").median,
        stock_milliseconds=rounds.timing("stock").median,
        ratio=rounds.ratio("swapped", "stock").median,
    )
