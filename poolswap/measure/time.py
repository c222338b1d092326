"""Times that can be compared on a noisy machine: the contestants take turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles

import torch

_FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call: the median, its quartiles and the fastest."""

    median: float
    low: float
    high: float
    fastest: float


@dataclass(frozen=True)
class Ratio:
    """One contestant's time over another's: the median of the rounds' own quotients, and its quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Rounds:
    """The seconds of every contestant in every round."""

    seconds: Mapping[str, list[float]]

    def timing(self, name: str) -> Timing:
        """How long a call of one took."""
        low, median, high = (1e3 * value for value in _quartiles(self.seconds[name]))
        return Timing(median, low, high, 1e3 * min(self.seconds[name]))

    def ratio(self, name: str, base: str) -> Ratio:
        """How many times as long as `base` it took: neighbours are compared, so a drift of the machine cancels."""
        low, median, high = _quartiles([a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True)])
        return Ratio(median, low, high)


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    limit: float | None = None,
) -> Rounds:
    """Time the contestants in turns, so that a drift of the machine hits all alike; two rounds or more.

    Every round times each of them once, starting with another one each time; an untimed call of the same one goes
    before, so that none pays for memory that another made the allocator give back. Garbage is not collected meanwhile.
    After `limit` seconds no new round begins, but for the first three. On a GPU the times are those of the device,
    between two events of its stream.
    """
    timed = _seconds_on_gpu if torch.device(device).type == "cuda" else _seconds
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for call in [*contestants.values()] * warmup:
        call()
    start = time.perf_counter()
    with _no_garbage_collection():
        for turn in range(rounds):
            if limit is not None and turn >= _FEWEST_ROUNDS and time.perf_counter() - start > limit:
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                contestants[name]()
                seconds[name].append(timed(contestants[name]))
    return Rounds(seconds)


def _quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4, method="inclusive")


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _seconds_on_gpu(call: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return 1e-3 * float(begin.elapsed_time(end))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
