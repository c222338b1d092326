"""What a benchmark's times depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from poolswap.ops import cpu
from poolswap.ops.backend import current


@dataclass(frozen=True)
class Environment:
    """The machine, its threads, and what computes SoftPool there."""

    processor: str
    threads: int
    backend: str
    torch: str

    def __str__(self) -> str:
        """One line for a title."""
        return f"{self.processor}, {self.threads} threads, SoftPool by {self.backend}, torch {self.torch}"


def environment(device: str = "cpu") -> Environment:
    """This machine, the threads and the backend that a benchmark on the device would use now."""
    backend = current(device).module.rpartition(".")[2]
    if backend == "cpu":
        backend = f"cpu ({cpu.instruction_set()})"
    processor = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return Environment(processor, torch.get_num_threads(), backend, torch.__version__)


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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
