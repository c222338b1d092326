"""A beta for each channel in the C++ kernel, and the gradient of beta, against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scales import elements, largest_elements, largest_shares
from test_cpu import BETAS, SMALLEST, TOLERANCE, Case, cases, close, make, moderate, spread
from torch import Tensor

from poolswap.functional import soft_pool2d
from poolswap.geometry import Geometry
from poolswap.ops import cpu, reference, use_backend
from poolswap.ops.reference import over_channels
from poolswap.ops.windows import Windows

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))


def ranges(x: Tensor, dims: int) -> Tensor:
    """Largest less smallest element of every plane, over the windows' dimensions."""
    planes = x.flatten(-dims)
    return (planes.amax(-1) - planes.amin(-1)).view(*x.shape[:-dims], *[1] * dims)


def largest_variances(x: Tensor, grad: Tensor, beta: Tensor, windows: Windows) -> Tensor:
    """What beta's gradient is accurate to: |g| times the plane's range times the window's deviation, or 1 / |beta|."""
    dims = windows.dims
    found, each = elements(x, windows), over_channels(beta, dims)
    real = found.isfinite()
    filled = found.masked_fill(~real, 0.0)
    weights = (filled * each.unsqueeze(-1)).masked_fill(~real, float("-inf")).softmax(-1).nan_to_num()
    mean = (weights * filled).sum(-1, keepdim=True)
    deviation = (weights * (filled - mean).square()).sum(-1).sqrt()
    reach = ranges(x, dims)
    step = torch.where(each.abs() < 2**-12, reach, 1 / each.abs())
    bounds = grad.abs() * reach * torch.maximum(deviation, step)
    return bounds.movedim(-dims - 1, 0).flatten(1).sum(1)


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from([moderate, spread]), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
@example(Case(Geometry.make(2, 3, 2, 1), (57, 56), (2, 33), "channels_last"), spread, torch.float32)
@example(Case(Geometry.make(2, 2, 2), (18, 32), (2, 33)), moderate, torch.float32)
@example(Case(Geometry.make(2, 7), (7, 7), (2, 40), "channels_last"), moderate, torch.float32)
def test_betas_of_channels_and_their_gradients(
    case: Case, values: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    """Each channel by its own beta, near 0 and far from it, whatever lies beside it in a vector."""
    x, grad = make(case, values, dtype)
    windows, exact = case.windows, x.double()
    channels = case.leading[-1]
    betas = torch.tensor(BETAS[:6], dtype=torch.float64).repeat(channels)[:channels]
    used = betas.to(torch.float32 if x.element_size() < 4 else x.dtype).double()
    y = cpu.forward(x, betas, windows)
    close(y, reference.forward(exact, used, windows), largest_elements(exact, windows))
    dx, dbeta = cpu.gradients(grad, x, betas, windows)
    assert dbeta.shape == betas.shape
    shares = largest_shares(grad, exact, used, windows)
    close(cpu.backward(grad, x, betas, windows), reference.backward(grad.double(), exact, used, windows), shares)
    near = used.abs().view(-1, *[1] * windows.dims)
    reach = torch.where(near < 2**-12, (near * ranges(exact, windows.dims)).clamp(min=1), torch.ones(()))
    close(dx, reference.backward(grad.double(), exact, used, windows), shares * reach)
    expected = reference.backward_beta(grad.double(), exact, used, windows)
    scale = largest_variances(exact, grad.double(), used, windows)
    error = (dbeta - expected).abs() / (scale + SMALLEST[torch.float32])
    assert error.max() < TOLERANCE[torch.float64 if dtype == torch.float64 else torch.float32]
    together = cpu.gradients(grad, x, betas[0], windows)[1]  # one beta: its gradient is the sum of all
    alone = reference.backward_beta(grad.double(), exact, used[0], windows)
    bound = largest_variances(exact, grad.double(), used[:1].expand(channels), windows).sum()
    assert (together - alone).abs() <= TOLERANCE[torch.float32] * bound + 1e-30


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_learnt_beta_is_trained_by_the_kernel(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules' float32 parameters get float32 gradients, one or one a channel, without the reference."""
    x = torch.randn(2, 20, 12, 9, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    for shape in [(), (20,)]:
        beta = torch.full(shape, 0.7, requires_grad=True)
        with use_backend("reference"):
            (expected,) = torch.autograd.grad(soft_pool2d(x, 3, 2, 1, beta=beta).sum(), beta)
        with monkeypatch.context() as patched, use_backend("cpu"):
            patched.setattr(reference, "_weights", None)
            (got,) = torch.autograd.grad(soft_pool2d(x, 3, 2, 1, beta=beta).sum(), beta)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 3e38])
def test_the_gradient_of_beta_where_no_encoder_reaches(value: float) -> None:
    """Infinite windows give it nothing, -inf weighs nothing, NaN makes its own channel's NaN."""
    x = torch.randn(1, 17, 9, 9, generator=torch.Generator().manual_seed(0))
    x[0, 3, 2, 2] = value
    betas = torch.linspace(-1, 2, 17)
    for geometry in (Geometry.make(2, 3, 2, 1), Geometry.make(2, 2, 2), Geometry.make(2, 3, 1, 1), Geometry.make(2, 9)):
        windows = Windows.place(geometry, (9, 9))
        grad = torch.ones(1, 17, *windows.output_size)
        got = cpu.gradients(grad, x, betas, windows)[1]
        expected = reference.backward_beta(grad.double(), x.double(), betas.double(), windows)
        others = [c for c in range(17) if c != 3]
        torch.testing.assert_close(got.double()[others], expected[others], rtol=1e-4, atol=1e-4)
        if value == 3e38:  # whose square no float32 holds
            continue
        torch.testing.assert_close(got.double()[3], expected[3], rtol=1e-4, atol=1e-4, equal_nan=True)
