"""The memory that a call takes at its peak."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(call: Callable[[], object], device: torch.device | str = "cpu") -> int | None:
    """Bytes that the process, or the GPU's allocations, grew by at the most while `call` ran, its result included.

    None for the CPU where Linux is not. What the allocator holds free is given back before, so that memory used again
    counts too.
    """
    if torch.device(device).type == "cuda":
        return _peak_on_gpu(call, device)
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


def peak_tensor_bytes(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Most bytes that the tensors which `call` makes held at once: the same in every run, and on every system.

    What a kernel takes for itself is not counted on the CPU.
    """
    if torch.device(device).type == "cuda":
        return _peak_on_gpu(call, device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _peak_on_gpu(call: Callable[[], object], device: torch.device | str) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


def _give_back_free_memory() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])
