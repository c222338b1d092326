"""The Triton kernels compute what the float64 reference does: under Triton's interpreter everywhere, and on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scales import largest_elements, largest_shares
from torch import Tensor

from poolswap.geometry import Geometry
from poolswap.ops import reference, triton
from poolswap.ops.triton.windows import SpatialWindows
from poolswap.ops.windows import Windows

launch = pytest.importorskip(
    "poolswap.ops.triton.launch", reason="Triton is not installed, or too old", exc_type=ImportError
)
import triton_interpreter  # noqa: E402

pytestmark = pytest.mark.triton

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA or ROCm device")
# For bfloat16 a whole step: Triton's interpreter truncates where devices round.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 1.01 * 2**-7, torch.float16: 1.01 * 2**-11}
DTYPES = list(TOLERANCE)
BETAS = [1.0, 0.0, -1.0, 0.1, 7.0, -0.3, 200.0]
LAYOUTS = ["contiguous", "channels_last", "strided"]


@pytest.fixture(scope="module", params=["interpreter", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the kernels run: copies of them in Python on the CPU, or they themselves."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "interpreter":
            patch.setattr(launch, "run", triton_interpreter.run)
            patch.setattr(launch, "warp_size", lambda device: 128)  # few large programs: the interpreter is slow
        yield "cpu" if request.param == "interpreter" else request.param


@dataclass(frozen=True)
class Case:
    """One call: windows over an input of this size, layout and kind of values."""

    geometry: Geometry
    size: tuple[int, ...]
    leading: tuple[int, ...] = (2, 3)
    layout: str = "contiguous"
    dtype: torch.dtype = torch.float32
    values: str = "moderate"
    beta: float = 1.0
    seed: int = 0

    @property
    def windows(self) -> Windows:
        return Windows.place(self.geometry, self.size)

    def make(self) -> tuple[Tensor, Tensor]:
        """(x, gradient of the output)."""
        generator = torch.Generator().manual_seed(self.seed)
        x = VALUES[self.values](torch.randn(*self.leading, *self.size, generator=generator, dtype=torch.float64))
        largest = torch.finfo(self.dtype).max
        x = torch.where(x.isfinite(), x.clamp(-largest, largest), x).to(self.dtype)
        grad = torch.randn(*self.leading, *self.windows.output_size, generator=generator).to(self.dtype)
        return arrange(x, self.layout), arrange(grad, self.layout)


def arrange(x: Tensor, layout: str) -> Tensor:
    if layout == "strided":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=formats[x.dim()]) if layout == "channels_last" and x.dim() in formats else x


def hostile(x: Tensor) -> Tensor:
    """Finite values that a careless softmax loses: a different kind in every plane."""
    peak = torch.where(x > 1.5, 1e4, 0.0)
    kinds = [x * 60, x - 200, peak, x * 1e-30, x.sign() * 3e38, x + 6e4, x.sign() * 0.0, x.round(), x * 3e38]
    rows = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * (x.dim() - 2)) % len(kinds)
    return torch.stack(kinds).gather(0, rows.expand_as(x)[None])[0]


def infinite(x: Tensor) -> Tensor:
    """Many -inf, some +inf and NaN."""
    chance = torch.rand(x.shape, generator=torch.Generator().manual_seed(x.numel()))
    x = x.masked_fill(chance < 0.3, float("-inf")).masked_fill(chance > 0.98, float("inf"))
    return x.masked_fill((chance > 0.96) & (chance < 0.98), float("nan"))


VALUES = {"moderate": lambda x: x, "hostile": hostile, "infinite": infinite}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Windows of every shape; the commonest ones often, and ones for every kernel."""
    dims = draw(st.sampled_from([1, 2, 2, 3]))

    def ints(choices: list[int]) -> st.SearchStrategy[list[int]]:
        return st.lists(st.sampled_from(choices), min_size=dims, max_size=dims)

    size = tuple(draw(ints([1, 2, 3, 5, 8, 11, 16] if dims < 3 else [1, 2, 3, 5, 6])))
    common = draw(st.sampled_from([(3, 2, 1), (3, 1, 1), (2, 2, 0), (3, 3, 0), (6, 2, 3), "global", None, None]))
    ceil = draw(st.booleans())
    if common == "global":
        geometry = Geometry.make(dims, size)
    elif common:
        geometry = Geometry.make(dims, *common, ceil_mode=ceil)
    else:
        kernel, dilation = draw(ints([1, 2, 3, 4, 7])), draw(ints([1, 1, 2, 3]))
        padding = [draw(st.integers(0, k // 2)) for k in kernel]
        geometry = Geometry.make(dims, kernel, draw(ints([1, 2, 3, 5])), padding, dilation, ceil)
    size = tuple(max(n, e - 2 * p) for n, e, p in zip(size, geometry.extent, geometry.padding, strict=True))
    return Case(
        geometry,
        size,
        leading=draw(st.sampled_from([(2, 3), (1, 16), (9, 1)])),
        layout=draw(st.sampled_from(LAYOUTS)),
        dtype=draw(st.sampled_from(DTYPES)),
        values=draw(st.sampled_from(list(VALUES))),
        beta=draw(st.sampled_from(BETAS)),
        seed=draw(st.integers(0, 2**16)),
    )


def run(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """(y, dx) by the kernels, on the CPU."""
    x, grad = (t.to(device) for t in case.make())
    beta = torch.tensor(case.beta, dtype=torch.float64, device=device)
    y = triton.forward(x, beta, case.windows)
    return y.cpu(), triton.backward(grad, x, beta, case.windows).cpu()


def check(case: Case, device: str) -> None:
    """y within tolerance of the window's largest |x|; dx of the largest share that each of its windows gives."""
    x, grad = (t.double() for t in case.make())
    beta = torch.tensor(case.beta, dtype=torch.promote_types(case.dtype, torch.float32)).double()
    y, dx = run(case, device)
    assert_close(y, reference.forward(x, beta, case.windows), largest_elements(x, case.windows))
    scale = largest_shares(grad, x, beta, case.windows)
    assert_close(dx, reference.backward(grad, x, beta, case.windows), scale)


def assert_close(got: Tensor, expected: Tensor, scale: Tensor) -> None:
    """Within the dtype's tolerance of `scale`, infinities and NaN exactly."""
    rounded = expected.to(got.dtype).double()
    finite = rounded.isfinite()
    torch.testing.assert_close(got.double()[~finite], rounded[~finite], rtol=0, atol=0, equal_nan=True)
    smallest = torch.finfo(got.dtype).smallest_normal
    error = (got.double() - expected).abs()[finite] / (TOLERANCE[got.dtype] * scale[finite] + smallest)
    assert error.numel() == 0 or error.max() <= 1, f"{float(error.max()):.3} times the tolerance"


@settings(max_examples=80)
@given(case=cases())
@example(Case(Geometry.make(2, 3, 2, 1), (9, 8), values="hostile"))
@example(Case(Geometry.make(2, 7), (7, 7), layout="channels_last", values="infinite"))
@example(Case(Geometry.make(1, 3, 1, 1), (11,), (1, 16), values="infinite", beta=-1.0))
@example(Case(Geometry.make(2, 6, 6), (14, 13), values="infinite", beta=-1.0))
def test_value_and_gradient_are_those_of_the_reference(device: str, case: Case) -> None:
    check(case, device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_every_kernel_in_every_dtype(device: str, dtype: torch.dtype, values: str, layout: str) -> None:
    for geometry, size in [
        (Geometry.make(2, 2), (6, 6)),
        (Geometry.make(2, 3, 2, 1), (7, 7)),
        (Geometry.make(2, 4, 1), (6, 6)),
        (Geometry.make(2, 6, 3, 3), (9, 9)),
        (Geometry.make(2, 7), (7, 7)),
    ]:
        check(Case(geometry, size, (2, 8), layout, dtype, values, beta=1.3), device)


KERNELS = {
    "2x2/2": (Geometry.make(2, 2), (8, 8), ["cell_gradient"]),
    "3x3/2": (Geometry.make(2, 3, 2, 1), (8, 8), ["small_windows", "gather_windows"]),
    "3x3/2, a single window": (Geometry.make(2, 3, 2, 1), (2, 2), ["cell_gradient"]),
    "8x8/2": (Geometry.make(2, 8, 2), (16, 16), ["large_windows", "gather_windows"]),
    "8x8/8": (Geometry.make(2, 8, 8), (16, 16), ["large_windows"]),
    "global": (Geometry.make(3, (4, 7, 7)), (4, 7, 7), ["large_windows"]),
    "SAME": (Geometry.make(2, 3, 2, same=True), (8, 8), ["small_windows", "gather_windows"]),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_plan_runs_the_kernels_it_should(name: str) -> None:
    geometry, size, expected = KERNELS[name]
    case = Case(geometry, size)
    x, grad = case.make()
    call = launch.KernelCall(x, torch.ones(()), 1, SpatialWindows.make(size, case.windows), 32)
    assert [step.kernel.__name__ for step in call.backward(grad, torch.empty_like(x))] == expected


@pytest.mark.parametrize("geometry", [Geometry.make(2, 2), Geometry.make(2, 3, 2, 1), Geometry.make(2, 6, 5, 3)])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_64_bit_offsets_change_nothing(
    device: str, geometry: Geometry, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(geometry, (12, 9), layout=layout)
    narrow = run(case, device)
    monkeypatch.setattr(launch, "WIDE_FROM", 0)
    torch.testing.assert_close(run(case, device), narrow)


@pytest.mark.parametrize("size", [(8,), (8, 8), (6, 6, 6)])
def test_dense_layouts_are_read_and_kept_without_a_copy(device: str, size: tuple[int, ...]) -> None:
    for layout in LAYOUTS[:2]:
        case = Case(Geometry.make(len(size), 3, 2, 1), size, layout=layout)
        x, _ = case.make()
        assert launch._dense(x, len(size))[0].data_ptr() == x.data_ptr()
        y, dx = run(case, device)
        expected = arrange(torch.empty(y.shape), layout)
        assert (y.stride(), dx.stride()) == (expected.stride(), x.stride())


@pytest.mark.parametrize("leading", [(3,), (2, 2, 3), (0, 3), (2, 0)])
@pytest.mark.parametrize("geometry", [Geometry.make(2, 3, 2, 1), Geometry.make(2, 5)])
def test_unbatched_more_leading_dimensions_and_empty(device: str, leading: tuple[int, ...], geometry: Geometry) -> None:
    x = torch.randn(*leading, 5, 5, device=device, dtype=torch.float64)
    windows = Windows.place(geometry, (5, 5))
    beta = torch.ones((), device=device)
    y = triton.forward(x, beta, windows)
    dx = triton.backward(torch.ones_like(y), x, beta, windows)
    torch.testing.assert_close(y, reference.forward(x, beta, windows))
    torch.testing.assert_close(dx, reference.backward(torch.ones_like(y), x, beta, windows))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_beta_is_any_tensor_of_one_number(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    case = Case(Geometry.make(2, 3, 2, 1), (6, 6))
    x, _ = case.make()
    beta = torch.full(shape, 2, dtype=dtype)
    expected = reference.forward(x, beta.reshape(()), case.windows)
    for place in {"cpu", device}:
        torch.testing.assert_close(triton.forward(x.to(device), beta.to(place), case.windows).cpu(), expected)


@pytest.mark.parametrize("beta", [1e38, -1e38, 3e-39, float("nan")])
def test_extreme_beta(device: str, beta: float) -> None:
    """Huge is maximum (minimum) pooling, tiny is average pooling, NaN is NaN; never NaN otherwise."""
    for geometry in (Geometry.make(2, 3, 2, 1), Geometry.make(2, 6)):
        case = Case(geometry, (6, 6), beta=beta)
        x, grad = case.make()
        exact = torch.tensor(beta, dtype=torch.float32)
        y, dx = run(case, device)
        torch.testing.assert_close(y, reference.forward(x, exact, case.windows), equal_nan=True)
        torch.testing.assert_close(dx, reference.backward(grad, x, exact, case.windows), equal_nan=True)


def test_the_largest_floats_do_not_overflow(device: str) -> None:
    largest = torch.finfo(torch.float32).max
    for volume in (2, 9, 32, 40):
        x = torch.tensor([largest, -largest]).repeat(volume // 2).repeat(1, 1, 4).to(device)
        windows = Windows((volume,), (volume,), (0,), (1,), (x.shape[-1] // volume,))
        y = triton.forward(x, torch.ones((), device=device), windows)
        assert torch.equal(y, torch.full_like(y, largest))
        average = triton.forward(x, torch.zeros((), device=device), windows)
        assert average.isfinite().all()


def test_the_gradient_is_the_same_bits_every_time(device: str) -> None:
    case = Case(Geometry.make(2, 3, 1, 1), (16, 16), leading=(4, 16))
    assert torch.equal(run(case, device)[1], run(case, device)[1])
