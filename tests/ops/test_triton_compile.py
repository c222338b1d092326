"""Every kernel compiles for every target without a GPU: no spills, vector accesses, little shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

aot = pytest.importorskip("triton_aot", reason="Triton is not installed, or too old", exc_type=ImportError)
import triton  # noqa: E402

from poolswap.ops.triton.launch import WARPS  # noqa: E402

pytestmark = pytest.mark.triton

LAYOUTS = ("contiguous", "channels_last")
SHARED_LIMIT = 48 * 1024  # what every target has without asking for more
REGISTER_LIMIT = {"cuda": 255, "hip": 512}


@pytest.fixture(scope="module", autouse=True)
def fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing compiled earlier counts."""
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path_factory.mktemp("triton"))
        yield


def check(case: str, dtype: torch.dtype, target: str, layout: str, wide: bool = False) -> None:
    gpu = aot.TARGETS[target]
    for launch in aot.plan(case, dtype, target, layout == "channels_last", wide):
        compiled = aot.compile_launch(launch, target)
        assert compiled.spills == 0, compiled
        assert compiled.registers <= REGISTER_LIMIT[gpu.backend], compiled
        assert compiled.shared <= SHARED_LIMIT, compiled
        assert compiled.offset_bits == (64 if wide else 32), compiled
        # Neighbouring elements of a lane are one access wherever they are neighbours in memory: channels always, and
        # what a kernel writes (or reads) in the order of its lanes.
        each = min(16, launch.arguments["block"] // (WARPS * gpu.warp_size) * dtype.itemsize)
        kind = compiled.kernel.split()[0]
        if kind == "large_windows":
            assert layout == "contiguous" or compiled.load == 16, compiled
        elif layout == "channels_last":
            assert min(compiled.load, compiled.store) >= each, compiled
        elif kind == "small_windows":
            assert compiled.store >= each, compiled
        elif kind == "gather_windows":
            assert min(compiled.load, compiled.store) >= each, compiled


@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", aot.CASES)
def test_compiles_as_intended(case: str, layout: str, target: str) -> None:
    """Every case in both layouts on every target; the dtypes take turns, so that each target compiles each of them."""
    turn = list(aot.CASES).index(case) + list(aot.TARGETS).index(target) + 2 * LAYOUTS.index(layout)
    check(case, aot.DTYPES[turn % len(aot.DTYPES)], target, layout)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("case", ["2x2/2 backward", "3x3/2 backward", "9x9/1 backward"])
def test_large_tensors_take_64_bit_offsets(case: str, target: str) -> None:
    check(case, torch.bfloat16, target, "contiguous", wide=True)
