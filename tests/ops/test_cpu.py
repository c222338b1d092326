"""The C++ kernel computes what the float64 reference does: any geometry, layout, dtype and values."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scales import elements, largest_elements, largest_shares
from torch import Tensor
from torch.nn import functional as F

from poolswap.functional import global_soft_pool, soft_pool1d, soft_pool2d
from poolswap.geometry import Geometry
from poolswap.ops import cpu, reference, soft_pool, use_backend
from poolswap.ops.windows import Windows

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))

TOLERANCE = {torch.float32: 1e-6, torch.float64: 5e-15, torch.bfloat16: 1.01 * 2**-8, torch.float16: 1.01 * 2**-11}
SMALLEST = {torch.float32: 1e-30, torch.float64: 1e-250, torch.bfloat16: 1e-30, torch.float16: 1e-3}
BETAS = [1.0, 0.0, -1.0, 0.1, 7.0, 1e-3, 1e-12, 200.0]


@dataclass(frozen=True)
class Case:
    geometry: Geometry
    size: tuple[int, ...]
    leading: tuple[int, ...]
    layout: str = "contiguous"
    seed: int = 0

    @property
    def windows(self) -> Windows:
        return Windows.place(self.geometry, self.size)

    def arrange(self, x: Tensor) -> Tensor:
        if self.layout == "channels_last" and x.dim() in (4, 5):
            return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
        return x.transpose(0, -1).contiguous().transpose(0, -1) if self.layout == "strided" else x


@st.composite
def cases(draw: st.DrawFn, dims: tuple[int, ...] = (1, 2, 2, 3)) -> Case:
    """Windows of every shape; the kernel's specialised ones (3/2, 3/1, 2/2, global) often."""
    n = draw(st.sampled_from(dims))

    def ints(choices: list[int]) -> st.SearchStrategy[list[int]]:
        return st.lists(st.sampled_from(choices), min_size=n, max_size=n)

    size = tuple(draw(ints([1, 2, 3, 5, 7, 8, 15, 16, 17, 33, 40] if n < 3 else [1, 2, 3, 5, 8, 17])))
    leading = draw(st.sampled_from([(1,), (3,), (2, 3), (1, 16), (2, 33), (2, 2, 2), (70,)]))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "strided"]))
    common = draw(st.sampled_from([(3, 2, 1), (3, 1, 1), (2, 2, 0), (3, 2, 0), None, None, "global"]))
    ceil = draw(st.booleans())
    if common == "global":
        geometry = Geometry.make(n, size, size)
    elif common:
        kernel, stride, padding = common
        geometry = Geometry.make(n, kernel, stride, padding, ceil_mode=ceil)
    else:
        kernel, dilation = draw(ints([1, 2, 3, 4, 5])), draw(ints([1, 1, 2, 3]))
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
        geometry = Geometry.make(n, kernel, draw(ints([1, 2, 3, 4])), padding, dilation, ceil_mode=ceil)
    grown = tuple(max(a, e - 2 * p) for a, e, p in zip(size, geometry.extent, geometry.padding, strict=True))
    return Case(geometry, grown, leading, layout, draw(st.integers(0, 2**31)))


def moderate(x: Tensor) -> Tensor:
    return x


def hostile(x: Tensor) -> Tensor:
    """Per-plane offsets and scales from 1e-30 to 3e38, single peaks, and equal values."""
    generator = torch.Generator().manual_seed(int(x.flatten()[0].item() * 1e6) & 0xFFFF)
    kind = torch.randint(0, 8, (x.shape[0], *[1] * (x.dim() - 1)), generator=generator)
    peak = torch.rand(x.shape, generator=generator) < 0.05
    variants = [x, x * 60, x - 200, torch.where(peak, 1e4, 0.0), x * 1e-30, x.sign() * 3e38, x + 1e6, 0 * x + 88.0]
    return torch.stack([v.double() for v in variants]).gather(0, kind.expand_as(x).unsqueeze(0))[0]


def spread(x: Tensor) -> Tensor:
    """Channels of scales from 0.1 to 1e4, some of them lognormal, relu or all but one element 0, and offsets of 1e6."""
    kind = torch.arange(x.shape[1]).view(-1, *[1] * (x.dim() - 2)) if x.dim() > 2 else torch.zeros(())
    variants = [0.1 * x, 1e4 * x, (3 * x).exp(), 64 * x.relu(), torch.where(x > 2, 1e4, 0.0), x + 1e6, 30 * x + 500]
    return torch.stack([v.double() for v in variants]).gather(0, (kind.long() % 7).expand_as(x).unsqueeze(0))[0]


def infinite(x: Tensor) -> Tensor:
    """Some elements infinite or NaN, and whole rows of -inf."""
    generator = torch.Generator().manual_seed(int(x.flatten()[0].item() * 1e6) & 0xFFFF)
    draw = torch.rand(x.shape, generator=generator)
    x = x.masked_fill(draw < 0.3, float("-inf")).masked_fill(draw > 0.98, float("inf"))
    return x.masked_fill((draw > 0.97) & (draw < 0.98), float("nan"))


def make(case: Case, values: Callable[[Tensor], Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x, gradient of the output)."""
    generator = torch.Generator().manual_seed(case.seed)
    x = torch.randn(*case.leading, *case.size, generator=generator, dtype=torch.float64)
    limit = torch.finfo(dtype).max
    x = case.arrange(values(x).clamp(-limit, limit) if values in (spread, hostile) else values(x)).to(dtype)
    grad = torch.randn(*case.leading, *case.windows.output_size, generator=generator).to(dtype)
    return x, grad


def check(case: Case, x: Tensor, grad: Tensor, beta: Tensor) -> None:
    """Forward within tolerance of the window's largest |x|, backward of the window's largest share of |g|."""
    windows, exact = case.windows, x.double()
    used = beta.to(torch.float32 if x.element_size() < 4 else x.dtype).double()
    with use_backend("cpu"):
        y = soft_pool(x, beta, windows)
        dx = torch.ops.poolswap.soft_pool_backward(grad, x, beta, *windows)
    close(y, reference.forward(exact, used, windows), largest_elements(exact, windows))
    close(dx, reference.backward(grad.double(), exact, used, windows), largest_shares(grad, exact, used, windows))


def close(got: Tensor, expected: Tensor, scale: Tensor) -> None:
    dtype, limit = got.dtype, torch.finfo(got.dtype).max
    got, finite = got.double(), expected.isfinite() & (expected.abs() < limit)
    torch.testing.assert_close(got.isnan(), expected.isnan())
    assert torch.equal(got[expected.isinf()], expected[expected.isinf()])
    error, bound = (got - expected).abs(), TOLERANCE[dtype] * scale + SMALLEST[dtype] * TOLERANCE[dtype]
    assert bool((error <= bound)[finite].all()), f"{(error / bound)[finite].max():.3g} times the tolerance"


@settings(max_examples=150, deadline=None)
@given(
    cases(),
    st.sampled_from([moderate, spread, hostile, infinite]),
    st.sampled_from(BETAS),
    st.sampled_from(list(TOLERANCE)),
)
@example(Case(Geometry.make(2, 2, 5, 1, 5), (4, 4), (3,)), moderate, 1.0, torch.float32)  # windows of nothing
@example(Case(Geometry.make(2, 3, 2, 1), (112, 112), (2, 4)), hostile, 1.0, torch.float32)
@example(Case(Geometry.make(2, 3, 2, 1), (57, 56), (2, 33), "channels_last"), hostile, 1.0, torch.float32)
def test_equals_the_float64_reference(
    case: Case, values: Callable[[Tensor], Tensor], beta: float, dtype: torch.dtype
) -> None:
    x, grad = make(case, values, dtype)
    check(case, x, grad, torch.tensor(beta, dtype=torch.float64))


STEM, SAME, PAIRS = Geometry.make(2, 3, 2, 1), Geometry.make(2, 3, 1, 1), Geometry.make(2, 2, 2)
CEILED, VALID = Geometry.make(2, 3, 2, ceil_mode=True), Geometry.make(2, 3, 1)


@pytest.mark.parametrize("values", [spread, hostile])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        *((STEM, (23, width)) for width in (16, 24, 32, 34, 48, 56, 112, 37)),  # whole, half and overlapping vectors
        *((SAME, size) for size in [(4, 4), (16, 1), (1, 16), (9, 7), (35, 35), (17, 33), (64, 64), (70, 65)]),
        *((PAIRS, (18, width)) for width in (32, 47, 96)),
        *((CEILED, (12, width)) for width in (4, 5, 6, 7, 8, 30, 31)),  # a last window of one, two or three columns
        *((VALID, (9, width)) for width in (3, 4, 5, 6, 20)),
        *((Geometry.make(2, k, 1, k // 2), size) for k in (5, 9, 13) for size in [(13, 14), (20, 20)]),
        *((Geometry.make(2, size), size) for size in [(1, 5), (4, 4), (7, 7), (5, 13), (31, 33), (40, 40)]),
    ],
    ids=str,
)
def test_specialised_windows_at_the_edges_of_their_vectors(
    geometry: Geometry, size: tuple[int, int], layout: str, dtype: torch.dtype, values: Callable[[Tensor], Tensor]
) -> None:
    for leading in [(1, 1), (1, 17), (3, 33)]:
        case = Case(geometry, size, leading, layout)
        check(case, *make(case, values, dtype), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("exponent", [-120, -101, -99, 99, 101, 120])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("geometry", "size"),
    [(STEM, (12, 32)), (SAME, (9, 9)), (PAIRS, (8, 32)), (Geometry.make(2, (7, 7)), (7, 7))],
    ids=str,
)
def test_gradients_of_any_size(geometry: Geometry, size: tuple[int, int], layout: str, exponent: int) -> None:
    """No share of the gradient overflows or loses its last bits on the way."""
    case = Case(geometry, size, (2, 17), layout)
    x, grad = make(case, moderate, torch.float32)
    flat = grad.view(-1)
    flat[::3] *= 2.0**exponent
    flat[::7] = 0
    check(case, x, grad, torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("channels", [32, 33])
@pytest.mark.parametrize("geometry", [STEM, SAME], ids=str)
def test_a_gradient_larger_than_the_caches(geometry: Geometry, channels: int) -> None:
    """It may be written past them. Each of its images is small enough to be written as usual."""
    case = Case(geometry, (301, 250), (2, channels), "channels_last")
    x, grad = make(case, moderate, torch.float32)
    assert 2 * x.nbytes > 32 << 20 > x.nbytes
    beta = torch.ones(())
    together = cpu.backward(grad, x, beta, case.windows)
    apart = [cpu.backward(g[None], one[None], beta, case.windows) for g, one in zip(grad, x, strict=True)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_gradients_that_are_not_finite_stay_so(value: float) -> None:
    x = torch.randn(1, 16, 8, 32)
    for geometry in (STEM, SAME, PAIRS, Geometry.make(2, (8, 32))):
        case = Case(geometry, (8, 32), (1, 16))
        grad = torch.zeros(1, 16, *case.windows.output_size)
        grad[0, 3, -1, -1] = value
        with use_backend("cpu"):
            dx = torch.ops.poolswap.soft_pool_backward(grad, x, torch.ones(()), *case.windows)
        assert not bool(dx[0, 3].isfinite().all())
        assert bool((dx[0, [2, 4]] == 0).all())


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(-(2.0**127), 2.0**127), st.floats(0, 2.0**127), st.sampled_from(BETAS))
def test_finite_for_every_finite_input(case: Case, offset: float, spread: float, beta: float) -> None:
    x, grad = make(case, moderate, torch.float64)
    x = (offset + spread * x).clamp(-3.4e38, 3.4e38).float()
    with use_backend("cpu"):
        y = soft_pool(x, torch.tensor(beta), case.windows)
        dx = torch.ops.poolswap.soft_pool_backward(grad.float(), x, torch.tensor(beta), *case.windows)
    filled = elements(torch.zeros_like(x), case.windows).amax(-1) == 0
    assert bool(y[filled].isfinite().all())
    assert bool(dx.isfinite().all())


@settings(max_examples=60, deadline=None)
@given(
    cases(),
    st.sampled_from([0.1, 1.0, 3.7]),
    st.sampled_from([0.0, 37.0, -200.0, 1e6]),
    st.sampled_from([5.2, 40.0, 1e4]),
)
@example(Case(Geometry.make(2, 3, 2, 1), (15, 16), (1, 16)), 0.1, 0.0, 5.2)
@example(Case(Geometry.make(2, 15, 1), (15, 15), (1, 16)), 0.1, 0.0, 10.5)
def test_gradients_of_close_values_keep_their_digits_wherever_those_lie(
    case: Case, beta: float, offset: float, reach: float
) -> None:
    """Exponents close together, anywhere in offset +- reach: nothing of x - y is lost that float32 x still has."""
    x, grad = make(case, moderate, torch.float64)
    planes = torch.rand(x.shape[0], *[1] * (x.dim() - 1), generator=torch.Generator().manual_seed(case.seed))
    exponents = offset + (reach * (2 * planes - 1) + 0.1 * x).clamp(-reach, reach)
    check(case, case.arrange((exponents / beta).float()), grad.float(), torch.tensor(beta))


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from([moderate, hostile]), st.sampled_from(list(TOLERANCE)))
@example(Case(Geometry.make(2, 3, 2, 1), (200, 90), (1,)), moderate, torch.float32)
@example(Case(Geometry.make(2, 3, 1, 1), (90, 31), (1, 40), "channels_last"), moderate, torch.float32)
def test_thread_count_changes_no_bit(case: Case, values: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    x, grad = make(case, values, dtype)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = cpu.forward(x, torch.ones(()), case.windows)
            dx = cpu.backward(grad, x, torch.ones(()), case.windows)
            results.append((y, dx, *cpu.gradients(grad, x, torch.ones(x.shape[-case.windows.dims - 1]), case.windows)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for got, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 0, 8, 8)])
def test_empty_batches_and_channels(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    y = soft_pool2d(x, 3, 2, 1)
    y.sum().backward()
    assert y.shape == (*shape[:2], 4, 4)
    assert x.grad is not None
    assert x.grad.shape == shape


def test_layout_in_is_the_layout_out() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 5, 9, 8).contiguous(memory_format=layout).requires_grad_()
        with use_backend("cpu"):
            y = soft_pool2d(x, 3, 2, 1)
            (dx,) = torch.autograd.grad(y, x, torch.ones(()).expand_as(y))
        assert y.is_contiguous(memory_format=layout)
        assert dx.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"), [(128, 128, 64, 28), (100, 200, 50, 10), (1000, 400, 500, 10)]
)
@pytest.mark.parametrize("dims", [1, 2])
def test_windows_much_longer_than_the_input_are_those_of_its_elements(dims, kernel, stride, padding, size):
    x = torch.randn(2, 3, *[size] * dims, dtype=torch.float64, requires_grad=True)
    windows = Windows.place(Geometry.make(dims, kernel, stride, padding), x.shape[2:])
    y = soft_pool(x, torch.tensor(1.0), windows)
    assert y.shape == (F.max_pool1d if dims == 1 else F.max_pool2d)(x, kernel, stride, padding).shape
    (gradient,) = torch.autograd.grad(y.sum(), x)
    # By hand, for this is the reference's work.
    starts = [o * stride - padding for o in range(y.shape[-1])]
    held = [slice(max(start, 0), start + kernel) for start in starts]
    expected = []
    for window in product(held, repeat=dims):
        inside = x[(..., *window)].flatten(2)
        expected.append((inside.softmax(-1) * inside).sum(-1))
    by_hand = torch.stack(expected, -1).reshape(y.shape)
    torch.testing.assert_close(y, by_hand)
    torch.testing.assert_close(gradient, *torch.autograd.grad(by_hand.sum(), x))


def test_long_rows_and_whole_maps() -> None:
    x = torch.randn(3, 2, 30_000)
    with use_backend("cpu"):
        long, whole = soft_pool1d(x, 5, 3), global_soft_pool(x, [2])
    with use_backend("reference"):
        torch.testing.assert_close(long, soft_pool1d(x.double(), 5, 3).float(), rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(whole, global_soft_pool(x.double(), [2]).float(), rtol=2e-6, atol=2e-6)


SCRIPT = """
import torch
from poolswap.ops import cpu
from poolswap.ops.windows import Windows
torch.manual_seed(3)
x = torch.randn(2, 20, 19, 37) * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1)
for layout in (torch.contiguous_format, torch.channels_last):
    for w in [((3, 3), (2, 2), (1, 1), (1, 1), (10, 19)), ((2, 3), (1, 3), (0, 0), (1, 2), (18, 11))]:
        a = x.contiguous(memory_format=layout)
        y = cpu.forward(a, torch.ones(()), Windows(*w))
        d = cpu.backward(y, a, torch.ones(()), Windows(*w))
        print(cpu.instruction_set(), y.double().sum().item(), d.double().abs().sum().item())
"""


def test_every_instruction_set_agrees() -> None:
    outputs = {}
    for isa in ("baseline", "x86_64_v3", "x86_64_v4"):
        environment = {**os.environ, "POOLSWAP_CPU_ISA": isa}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        outputs[run.stdout.split()[0]] = [float(word) for word in run.stdout.split() if word[0] in "-0123456789"]
    assert "baseline" in outputs
    for numbers in outputs.values():
        assert numbers == pytest.approx(outputs["baseline"], rel=1e-5)


def _pool_in_a_worker(_: int) -> float:
    torch.set_num_threads(1)  # as a DataLoader does
    return float(soft_pool2d(torch.ones(4, 64, 64, 64), 3, 2, 1).mean())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("three_threads")
def test_forked_workers_do_not_hang() -> None:
    soft_pool2d(torch.ones(4, 64, 64, 64), 3, 2, 1)  # the parent has started its threads
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_pool_in_a_worker, range(4)).get(timeout=60) == [1.0] * 4


LARGE = torch.randn(4, 64, 64, 64, generator=torch.Generator().manual_seed(0))


def _pool_as_it_comes(threads: int) -> bytes:
    torch.set_num_threads(threads)
    windows, beta = Windows.place(Geometry.make(2, 3, 2, 1), (64, 64)), torch.ones(())
    y = cpu.forward(LARGE, beta, windows)
    return bytes(cpu.backward(y, LARGE, beta, windows).untyped_storage()[-4096:])  # torch's own operators may hang here


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_wait_for_threads_that_stayed_behind() -> None:
    before = torch.get_num_threads()
    try:
        expected = _pool_as_it_comes(2)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map_async(_pool_as_it_comes, [2]).get(timeout=60) == [expected]
    finally:
        torch.set_num_threads(before)


def test_python_threads_do_not_disturb_one_another() -> None:
    inputs = [LARGE[:, : 8 * n].contiguous() for n in range(1, 9)]
    alone = [soft_pool2d(x, 3, 2, 1) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda x: soft_pool2d(x, 3, 2, 1), inputs))
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_shares_the_openmp_runtime_of_torch() -> None:
    """In a process of its own: other libraries bring runtimes of theirs."""
    code = (
        "import pathlib, torch, poolswap\n"
        "poolswap.functional.soft_pool2d(torch.ones(4, 64, 64, 64), 3, 2, 1)\n"
        "maps = pathlib.Path('/proc/self/maps').read_text().splitlines()\n"
        "print(*{line.split()[-1] for line in maps if 'libgomp' in line}, sep='\\n')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(ran.stdout.split()) <= 1, ran.stdout


# (kernel_size, stride, leading padding, dilation, output_size) of a 9x9 map that the kernel must not believe.
UNSERVED = {
    "no dilation": ((2, 2), (2, 2), (0, 0), (0, 1), (4, 4)),
    "negative padding": ((2, 3), (7, 3), (-8, 0), (1, 2), (1, 2)),
    "negative dilation": ((2, 3), (7, 3), (0, 0), (-5, 2), (1, 2)),
    "padding beyond the window": ((2, 2), (2, 2), (9, 0), (1, 1), (4, 4)),
    "kernel of 0": ((0, 2), (2, 2), (0, 0), (1, 1), (4, 4)),
    "kernel of 2**62": ((2**62, 2), (2, 2), (0, 0), (1, 1), (4, 4)),
    "overflowing extent": ((2**31, 2), (2, 2), (0, 0), (2**31, 1), (4, 4)),
    "stride of -1": ((2, 2), (-1, 2), (0, 0), (1, 1), (4, 4)),
    "windows behind the end": ((2, 2), (2, 2), (0, 0), (1, 1), (4, 6)),
    "no window": ((2, 2), (2, 2), (0, 0), (1, 1), (0, 4)),
}


def test_a_library_that_another_version_built_is_left_alone(monkeypatch):
    monkeypatch.setattr(cpu, "_INTERFACE", cpu._INTERFACE + 1)
    cpu._library.cache_clear()
    assert cpu.unavailable() == "the C++ kernel is of another version of poolswap: install poolswap again"
    cpu._library.cache_clear()


@pytest.mark.parametrize("name", UNSERVED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_kernel_refuses_what_it_cannot_serve(name, dtype, layout, monkeypatch):
    """Past every check in Python, at the C interface."""
    monkeypatch.setattr(cpu, "_MOST_VOID", 2**63)
    x = torch.zeros(2, 4, 9, 9, dtype=dtype).contiguous(memory_format=layout)
    windows = UNSERVED[name]
    shape = (2, 4, *windows[-1])
    out = torch.zeros(shape, dtype=dtype).contiguous(memory_format=layout)
    call = cpu._describe.__wrapped__(dtype, x.shape, layout, Windows(*windows), 1)  # not the cached one
    library, threads, beta = cpu._library(), 1, torch.ones((), dtype=torch.float64)
    pointers = [t.data_ptr() or x.data_ptr() for t in (x, out)]
    for status in (
        library.poolswap_forward(call.address, beta.data_ptr(), *pointers, threads),
        library.poolswap_backward(call.address, beta.data_ptr(), pointers[1], pointers[0], pointers[0], None, threads),
    ):
        with pytest.raises(ValueError, match=r"windows|size"):
            cpu._check(status)


def test_the_kernel_refuses_pointers_threads_and_types_it_cannot_use():
    x = torch.zeros(1, 1, 4, 4)
    windows = Windows((2, 2), (2, 2), (0, 0), (1, 1), (2, 2))
    call = cpu._describe.__wrapped__(x.dtype, x.shape, torch.contiguous_format, windows, 1)  # not the cached one
    beta = torch.ones((), dtype=torch.float64)
    forward, at, one = cpu._library().poolswap_forward, x.data_ptr(), beta.data_ptr()
    given = [(None, one, at, at, 1), (call.address, None, at, at, 1), (call.address, one, None, at, 1)]
    assert [forward(*arguments) for arguments in given] == [3, 3, 3]
    assert forward(call.address, one, at + 1, at, 1) == 3
    assert [forward(call.address, one, at, at, threads) for threads in (0, -1, 2**62)] == [4, 4, 4]
    call.spec[4] = 2
    assert forward(call.address, one, at, at, 1) == 7
    call.spec[4], call.spec[0] = 1, 9
    assert forward(call.address, one, at, at, 1) == 2
    with pytest.raises(TypeError, match="dtype"):
        cpu._check(2)
