"""What runs here: versions, devices, and which backends work and why not. Put it into a bug report."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "triton", "numpy", "pydantic", "rich", "safetensors", "typer")

_EXTRA_REQUIREMENT = re.compile(r"""(?P<name>[\w.-]+).*\bextra\s*==\s*["'](?P<extra>[\w.-]+)["']""")


@dataclass(frozen=True)
class DeviceInfo:
    """One device that torch sees."""

    name: str
    description: str


@dataclass(frozen=True)
class BackendState:
    """One implementation of SoftPool: where it can run, why not, and the device types present that it is used for."""

    name: str
    device: str
    works: bool
    reason: str | None
    used_for: list[str]


@dataclass(frozen=True)
class ExtraState:
    """One optional extra and those of its packages that are missing."""

    name: str
    installed: bool
    missing: list[str]


def environment() -> dict[str, Any]:
    """All of it, as plain values and dataclasses by part."""
    return {
        "versions": versions(),
        "system": system(),
        "devices": devices(),
        "backends": backends(),
        "backend_problems": backend_problems(),
        "extras": extras(),
    }


def versions() -> dict[str, str | None]:
    """Installed versions by distribution name; None where it is not installed."""
    from poolswap.versions import own_version

    return {
        "poolswap": own_version(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def system() -> dict[str, Any]:
    """The operating system, and the processors and threads that torch uses."""
    import torch

    return {
        "os": platform.platform(),
        "machine": platform.machine(),
        "executable": sys.executable,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda_build": torch.version.cuda,
        "backend_requested": _requested_backend(),
    }


def devices() -> list[DeviceInfo]:
    """The CPU, and every accelerator that torch can use."""
    import torch

    found = [DeviceInfo("cpu", platform.processor() or platform.machine())]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        found.append(
            DeviceInfo(f"cuda:{index}", f"{properties.name}, {memory:.0f} GiB, sm_{properties.major}{properties.minor}")
        )
    if torch.backends.mps.is_available():
        found.append(DeviceInfo("mps", "Apple GPU"))
    return found


def find_device(name: str | None) -> str:
    """The device that was asked for, or the GPU, or the CPU. Raises InputError for one that torch lacks."""
    import torch

    from poolswap.errors import InputError, first_line

    lists = "poolswap env lists the devices"
    if (name or "").partition(":")[0] == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA or ROCm device", lists)
    try:
        torch.empty(0, device=torch.device(name or "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name!r}: {first_line(error)}", lists) from None
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def backends() -> list[BackendState]:
    """Every backend of SoftPool, by what POOLSWAP_BACKEND asks for."""
    from poolswap.ops.backend import BACKENDS

    chosen = {kind: name for kind, (name, _) in _chosen_backends().items()}
    states = []
    for backend in BACKENDS.values():
        reason = backend.unavailable()
        used_for = [kind for kind, name in chosen.items() if name == backend.name]
        states.append(BackendState(backend.name, backend.device or "any", reason is None, reason, used_for))
    return states


def backend_problems() -> list[str]:
    """Why what POOLSWAP_BACKEND asks for cannot run, one line for each device type present that lacks it."""
    return [f"{kind}: {problem}" for kind, (_, problem) in _chosen_backends().items() if problem]


def _chosen_backends() -> dict[str, tuple[str | None, str | None]]:
    """Device type -> (backend, None), or (None, why there is none)."""
    from poolswap.ops.backend import BackendError, select

    chosen: dict[str, tuple[str | None, str | None]] = {}
    for kind in dict.fromkeys(device.name.partition(":")[0] for device in devices()):
        try:
            chosen[kind] = select(kind, _requested_backend()).name, None
        except BackendError as error:
            chosen[kind] = None, str(error)
    return chosen


def _requested_backend() -> str:
    from poolswap.ops.backend import ENVIRONMENT_VARIABLE

    return os.environ.get(ENVIRONMENT_VARIABLE, "auto")


def extras() -> list[ExtraState]:
    """The optional extras that the installed poolswap declares."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        metadata = distribution("poolswap").metadata
    except PackageNotFoundError:
        return []
    missing: dict[str, list[str]] = {name: [] for name in metadata.get_all("Provides-Extra") or []}
    for requirement in metadata.get_all("Requires-Dist") or []:
        parsed = _EXTRA_REQUIREMENT.match(requirement)
        if parsed and _version(parsed["name"]) is None:
            missing[parsed["extra"]].append(parsed["name"])
    return [ExtraState(name, not names, names) for name, names in missing.items()]


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
