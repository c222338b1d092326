"""Times that can be compared on a noisy machine, and the memory that a call takes at its peak."""

from __future__ import annotations

import ctypes
import gc
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import torch

from poolswap.ops import cpu
from poolswap.ops.backend import implementation

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call: the median, its quartiles and the fastest."""

    median: float
    low: float
    high: float
    fastest: float

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """From at least two measured calls."""
        low, median, high = (1e3 * value for value in quantiles(seconds, n=4, method="inclusive"))
        return cls(median, low, high, 1e3 * min(seconds))


def interleave(
    contestants: Mapping[str, Call], repeats: int, warmup: int = 2, device: str = "cpu"
) -> dict[str, Timing]:
    """Time the contestants in turns, so that a drift of the machine hits all alike.

    Every round times each of them once, starting with another one each time; an untimed call of the same one goes
    before, so that none pays for memory that another made the allocator give back. Garbage is not collected meanwhile.
    On a GPU the times are those of the device, between two events of its stream.
    """
    timed = _seconds_on_gpu if device == "cuda" else _seconds
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warmup):
        for call in contestants.values():
            call()
    with _no_garbage_collection():
        for turn in range(repeats):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                contestants[name]()
                seconds[name].append(timed(contestants[name]))
    return {name: Timing.of(values) for name, values in seconds.items()}


def peak_memory(call: Call, device: str = "cpu") -> int | None:
    """Bytes that the process, or the GPU's allocations, grew by at the most while `call` ran, its result included.

    None for the CPU where Linux is not. What the allocator holds free is given back before, so that memory used again
    counts too.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - allocated
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        _give_back_free_memory()
        reset.write_text("5")
        before = _kilobytes(status, "VmRSS")
        result = call()
        peak = _kilobytes(status, "VmHWM")
        del result
    except OSError:
        return None
    return max(peak - before, 0) * 1024


@dataclass(frozen=True)
class Environment:
    """What the times depend on."""

    processor: str
    threads: int
    backend: str
    torch: str

    def __str__(self) -> str:
        """One line for a title."""
        return f"{self.processor}, {self.threads} threads, SoftPool by {self.backend}, torch {self.torch}"


def environment(device: str = "cpu") -> Environment:
    """This machine, the threads and the backend that a benchmark on the device would use now."""
    backend = implementation(device)[0].__module__.rpartition(".")[2]
    if backend == "cpu":
        backend = f"cpu ({cpu.instruction_set()})"
    processor = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return Environment(processor, torch.get_num_threads(), backend, torch.__version__)


def _seconds(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _seconds_on_gpu(call: Call) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return 1e-3 * float(begin.elapsed_time(end))


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """torch's thread count for the length of a with block; None leaves it. Yields the count."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _give_back_free_memory() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])
