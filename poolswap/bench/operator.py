"""The pooling operator on its own: SoftPool beside everything a user could put in its place."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from poolswap.bench.model import Layout
from poolswap.bench.values import NORMAL, VALUES, available
from poolswap.functional import soft_pool1d, soft_pool2d, soft_pool3d
from poolswap.geometry import Geometry
from poolswap.measure import Timing, interleave, peak_memory
from poolswap.ops.layout import CHANNELS_LAST

Pass = Literal["forward", "forward+backward"]
Pool = Callable[..., Tensor]

SOFT_POOL = "soft_pool"
_SOFT = {1: soft_pool1d, 2: soft_pool2d, 3: soft_pool3d}
_MAX: dict[int, Pool] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG: dict[int, Pool] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Case:
    """One input and its windows: shape is (N, C, *spatial)."""

    shape: tuple[int, ...]
    kernel_size: int
    stride: int
    padding: int = 0

    @property
    def dims(self) -> int:
        """Spatial dimensions."""
        return len(self.shape) - 2

    @property
    def largest(self) -> str:
        """The name of torch's max pooling for so many dimensions."""
        return f"max_pool{self.dims}d"

    @property
    def layouts(self) -> list[Layout]:
        """Those that torch has for so many dimensions."""
        return ["contiguous", "channels_last"] if len(self.shape) in CHANNELS_LAST else ["contiguous"]

    def geometry(self) -> Geometry:
        """Raises ValueError for windows that torch refuses."""
        return Geometry.make(self.dims, self.kernel_size, self.stride, self.padding)

    def __str__(self) -> str:
        """8x64x112x112 k3 s2 p1."""
        return f"{'x'.join(map(str, self.shape))} k{self.kernel_size} s{self.stride} p{self.padding}"


STANDARD_CASES = (
    Case((8, 64, 112, 112), 3, 2, 1),
    Case((8, 64, 112, 112), 2, 2),
    Case((8, 192, 35, 35), 3, 1, 1),
    Case((32, 2048, 7, 7), 7, 7),
    *(Case((8, 512, 20, 20), kernel, 1, kernel // 2) for kernel in (5, 9, 13)),  # a detector's SPPF and SPP
)


@dataclass(frozen=True)
class OperatorRow:
    """One contestant on one case, filled with `values` of `poolswap.bench.values`.

    `bytes_moved` is what the pass must read and write; `roofline` the share of the time that moving it takes at the
    speed of a plain copy, measured in the same rounds. `ratio` is SoftPool's time over this one's, the median of the
    rounds' own. `peak_bytes` is None where it cannot be measured.
    """

    case: str
    layout: Layout
    values: str
    direction: Pass
    contestant: str
    timing: Timing
    ratio: float
    bytes_moved: int | None
    roofline: float | None
    peak_bytes: int | None


def bench_operator(
    cases: Iterable[Case] = STANDARD_CASES,
    *,
    device: str = "cpu",
    repeats: int = 21,
    compiled: bool = True,
    memory: bool = True,
    progress: Callable[[int], None] = lambda steps: None,
) -> list[OperatorRow]:
    """Time every contestant on every case in both layouts and directions, fp32, on "cpu" or "cuda".

    Filled with N(0, 1) all contestants are timed; with the other values, SoftPool and max pooling. `compiled` adds the
    two-average formulation under torch.compile, which takes some seconds a case. `progress` is called with 1 after each
    of a case's layouts.
    """
    rows: list[OperatorRow] = []
    for case in cases:
        for layout in case.layouts:
            contestants = _contestants(case, compiled)
            usual = {SOFT_POOL: contestants[SOFT_POOL], case.largest: contestants[case.largest]}
            for values in available(case.dims):
                torch.manual_seed(0)
                x = VALUES[values](case.shape).to(device)
                if layout == "channels_last":
                    x = x.contiguous(memory_format=CHANNELS_LAST[x.dim()])
                pools, measured = (contestants, memory) if values == NORMAL else (usual, False)
                rows += _forward(case, layout, values, x, pools, repeats, measured)
                rows += _backward(case, layout, values, x, pools, repeats, measured)
            progress(1)
    return rows


def two_averages(x: Tensor, case: Case) -> Tensor:
    """SoftPool as avg(exp(x) x) / avg(exp(x)): the same function where exp(x) neither overflows nor vanishes."""
    pool, windows = _AVG[case.dims], (case.kernel_size, case.stride, case.padding)
    e = x.exp()
    return pool(e * x, *windows) / pool(e, *windows)


def _contestants(case: Case, compiled: bool) -> dict[str, Pool]:
    soft, largest, average = _SOFT[case.dims], _MAX[case.dims], _AVG[case.dims]
    windows = (case.kernel_size, case.stride, case.padding)
    pools: dict[str, Pool] = {
        SOFT_POOL: lambda x: soft(x, *windows),
        case.largest: lambda x: largest(x, *windows),
        f"avg_pool{case.dims}d": lambda x: average(x, *windows),
        "two averages": lambda x: two_averages(x, case),
    }
    if compiled:
        # Compiling warns of a CUDA toolkit without a GPU, which is no news of ours.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        torch.compiler.reset()
        optimised = torch.compile(lambda x: two_averages(x, case), dynamic=False)
        pools["two averages, compiled"] = optimised
    return pools


def _by_one_dnn(case: Case, layout: Layout, values: str, x: Tensor) -> dict[str, Callable[..., Tensor]]:
    """Average pooling of N(0, 1) by oneDNN, which torch reaches for contiguous maps on the CPU alone."""
    reached = case.dims > 1 and x.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if not reached or layout != "contiguous" or values != NORMAL:
        return {}
    average = _AVG[case.dims]
    return {f"avg_pool{case.dims}d, oneDNN": lambda x: average(x, case.kernel_size, case.stride, case.padding)}


def _forward(
    case: Case, layout: Layout, values: str, x: Tensor, pools: Mapping[str, Pool], repeats: int, memory: bool
) -> list[OperatorRow]:
    calls = {name: partial(pool, x) for name, pool in pools.items()}
    result = torch.empty_like(x)
    others: dict[str, Callable[[], object]] = {"exp": lambda: torch.exp(x, out=result)}
    others |= {name: partial(pool, x.to_mkldnn()) for name, pool in _by_one_dnn(case, layout, values, x).items()}
    moved = x.nbytes + x.element_size() * math.prod((*case.shape[:2], *case.geometry().output_size(case.shape[2:])))
    with torch.no_grad():
        return _rows(case, layout, values, "forward", x, calls, others, moved, repeats, memory)


def _backward(
    case: Case, layout: Layout, values: str, x: Tensor, pools: Mapping[str, Pool], repeats: int, memory: bool
) -> list[OperatorRow]:
    leaf = x.detach().clone().requires_grad_()
    grad = torch.randn_like(pools[SOFT_POOL](x))

    def step(pool: Pool, leaf: Tensor, grad: Tensor) -> None:
        pool(leaf).backward(grad)
        leaf.grad = None

    calls = {name: partial(step, pool, leaf, grad) for name, pool in pools.items()}
    others = {
        name: partial(step, pool, x.to_mkldnn().requires_grad_(), grad.to_mkldnn())
        for name, pool in _by_one_dnn(case, layout, values, x).items()
    }
    moved = 3 * x.nbytes + 2 * grad.nbytes  # x, y; then x, the gradient of y, the gradient of x
    return _rows(case, layout, values, "forward+backward", x, calls, others, moved, repeats, memory)


def _rows(
    case: Case,
    layout: Layout,
    values: str,
    direction: Pass,
    x: Tensor,
    pools: Mapping[str, Callable[[], object]],
    others: Mapping[str, Callable[[], object]],
    moved: int,
    repeats: int,
    memory: bool,
) -> list[OperatorRow]:
    """Time the pools, what else is a measure of the machine, and a copy, which tells how fast memory is."""
    device, buffer = x.device.type, torch.empty_like(x)
    peaks: dict[str, int | None] = {}
    for name, call in pools.items():
        call()
        peaks[name] = peak_memory(call, device) if memory else None
    rounds = interleave({**pools, **others, "copy": lambda: buffer.copy_(x)}, repeats, device=device)
    timings = {name: rounds.timing(name) for name in rounds.seconds}
    speed = 2 * x.nbytes / timings["copy"].median  # bytes per millisecond
    return [
        OperatorRow(
            case=str(case),
            layout=layout,
            values=values,
            direction=direction,
            contestant=name,
            timing=timing,
            ratio=rounds.ratio(SOFT_POOL, name).median,
            bytes_moved=moved if name in peaks else None,
            roofline=moved / speed / timing.median if name in peaks else None,
            peak_bytes=peaks.get(name),
        )
        for name, timing in timings.items()
    ]
