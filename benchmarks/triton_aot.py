"""Compile the kernels for GPUs that need not be there, and read the compiler's own report of the result."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from poolswap.geometry import Geometry
from poolswap.ops.layout import empty_output
from poolswap.ops.triton.launch import WARPS, KernelCall, Launch
from poolswap.ops.triton.windows import SpatialWindows
from poolswap.ops.windows import Windows

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}

# Calls that between them run every kernel in each of its forms: (geometry, spatial input size, backward).
CASES = {
    "2x2/2 forward": (Geometry.make(2, 2), (112, 112), False),
    "2x2/2 backward": (Geometry.make(2, 2), (112, 112), True),
    "3x3/2 forward": (Geometry.make(2, 3, 2, 1), (112, 112), False),
    "3x3/2 backward": (Geometry.make(2, 3, 2, 1), (112, 112), True),
    "3x3/1 backward": (Geometry.make(2, 3, 1, 1), (56, 56), True),
    "3x3x3/2 backward": (Geometry.make(3, 3, 2, 1), (16, 56, 56), True),
    "global forward": (Geometry.make(2, 7), (7, 7), False),
    "global backward": (Geometry.make(2, 7), (7, 7), True),
    "9x9/1 backward": (Geometry.make(2, 9, 1, 4), (32, 32), True),
}
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def plan(case: str, dtype: torch.dtype, target: str, channels_last: bool = False, wide: bool = False) -> list[Launch]:
    """The launches of a call of CASES on tensors of 64 channels that hold no memory; `wide`: over 2**31 elements."""
    geometry, size, backward = CASES[case]
    dense = torch.empty((2**20 if wide else 32, 64, *size), dtype=dtype, device="meta")
    layout = (torch.channels_last if geometry.dims == 2 else torch.channels_last_3d) if channels_last else None
    x = dense.contiguous(memory_format=layout) if layout else dense
    windows = Windows.place(geometry, size)
    beta = torch.empty((), device="meta")
    spatial = SpatialWindows.make(size, windows)
    call = KernelCall(x, beta, 64 if channels_last else 1, spatial, TARGETS[target].warp_size)
    y = empty_output(x, windows.output_size)
    return list(call.backward(y, torch.empty_like(x)) if backward else call.forward(y))


@dataclass(frozen=True)
class Compiled:
    """What one kernel became on one target.

    `registers` and bytes of `spills` are a thread's, bytes of `shared` memory a program's; `load` and `store` are the
    widest accesses to global memory in bytes, `offset_bits` the narrowest pointer offset.
    """

    kernel: str
    target: str
    registers: int
    spills: int
    shared: int
    load: int
    store: int
    offset_bits: int


def compile_launch(launch: Launch, target: str) -> Compiled:
    """Compile exactly what the launch would have compiled on such a device; its tensors may be on `meta`."""
    gpu = TARGETS[target]
    result = triton.compile(*_source(launch, gpu))
    if gpu.backend == "hip":
        text = result.asm["amdgcn"]
        registers = _number(r"\.vgpr_count:\s+(\d+)", text)
        spills = _number(r"\.vgpr_spill_count:\s+(\d+)", text) + _number(r"\.private_segment_fixed_size:\s+(\d+)", text)
        widths = {
            access: [_HIP_WIDTHS[w] for w in re.findall(_HIP_ACCESS.format(access), text)] for access in _ACCESSES
        }
    else:
        registers, spills = _resources(result.asm["cubin"])
        found = {access: re.findall(_PTX_ACCESS.format(access), result.asm["ptx"]) for access in _ACCESSES.values()}
        widths = {access: [int(v or 1) * int(b) // 8 for v, b in found[short]] for access, short in _ACCESSES.items()}
    return Compiled(
        kernel=_form(launch),
        target=target,
        registers=registers,
        spills=spills,
        shared=result.metadata.shared,
        load=max(widths["load"]),
        store=max(widths["store"]),
        offset_bits=min(int(bits) for bits in re.findall(_TTIR_OFFSET, result.asm["ttir"])),
    )


_ACCESSES = {"load": "ld", "store": "st"}
_PTX_ACCESS = r"{}\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)"
_HIP_ACCESS = r"(?:global|buffer)_{}_(dwordx4|dwordx2|dword|u?short)(?:_d16\w*)?\s"
_HIP_WIDTHS = {"dwordx4": 16, "dwordx2": 8, "dword": 4, "short": 2, "ushort": 2}
_TTIR_OFFSET = r"tt\.addptr.* : .*, (?:tensor<(?:\d+x)+)?i(\d+)>?"


def _form(launch: Launch) -> str:
    """The kernel's name with what it does, where it does several things."""
    arguments = launch.arguments
    mode = arguments.get("mode", "statistics" if arguments.get("statistics") else None)
    return f"{launch.kernel.__name__} {mode or ''}".rstrip()


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
