"""Compile a launch for a GPU that need not be there, and read the compiler's own report of the result."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from poolswap.ops.triton.launch import WARPS, Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


@dataclass(frozen=True)
class Compiled:
    """What one kernel became on one target. `load` and `store` are the widest accesses to global memory, in bytes."""

    kernel: str
    target: str
    registers: int
    spills: int
    shared: int
    load: int
    store: int


def compile_launch(launch: Launch, target: str) -> Compiled:
    """Compile exactly what the launch would have compiled on such a device; its tensors may be on `meta`."""
    gpu = TARGETS[target]
    result = triton.compile(*_source(launch, gpu))
    name = launch.kernel.__name__
    if gpu.backend == "hip":
        text = result.asm["amdgcn"]
        registers, spills = _number(r"\.vgpr_count:\s+(\d+)", text), _number(r"\.vgpr_spill_count:\s+(\d+)", text)
        spills += _number(r"\.private_segment_fixed_size:\s+(\d+)", text)
        wide = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "short": 2}
        pattern = r"(?:global|buffer)_{}_(?:short_)?(\w+?)(?:_d16\w*)?\s"
        widths = {
            access: max((wide.get(w, 0) for w in re.findall(pattern.format(access), text)), default=0)
            for access in ("load", "store")
        }
    else:
        registers, spills = _resources(result.asm["cubin"])
        widths = {
            access: max((int(v or 1) * int(b) // 8 for v, b in re.findall(pattern, result.asm["ptx"])), default=0)
            for access, pattern in (
                ("load", r"ld\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)"),
                ("store", r"st\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)"),
            )
        }
    return Compiled(name, target, registers, spills, result.metadata.shared, widths["load"], widths["store"])


def _source(launch: Launch, gpu: GPUTarget) -> tuple[Any, GPUTarget, dict[str, Any]]:
    """The source with the types, constants and divisibility that Triton would find in these arguments."""
    kernel, backend = launch.kernel, make_backend(gpu)
    keywords = {"num_warps": WARPS, "debug": False}
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, _ = bind(**launch.arguments, **keywords)
    options, signature, constants, attributes = kernel._pack_args(backend, keywords, bound, specialization, None)
    return ASTSource(kernel, signature, constants, attributes), gpu, options.__dict__


def _resources(cubin: bytes) -> tuple[int, int]:
    """(registers, spilled bytes a thread) as cuobjdump, which comes with Triton, reports them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        command = [tool, "--dump-resource-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return _number(r"REG:(\d+)", text), _number(r"STACK:(\d+)", text) + _number(r"LOCAL:(\d+)", text)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the compiler's report has no {pattern}")
    return int(found[1])
