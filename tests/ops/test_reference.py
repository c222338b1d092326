"""The readable reference is the definition: exact, finite, with the true gradient."""

import math

import oracle
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from poolswap.functional import (
    adaptive_soft_pool,
    global_soft_pool,
    soft_pool1d,
    soft_pool2d,
    soft_pool3d,
    soft_pool_windows,
)
from poolswap.geometry import Geometry
from poolswap.ops import use_backend

POOLS = {1: soft_pool1d, 2: soft_pool2d, 3: soft_pool3d}


@pytest.fixture(autouse=True)
def reference():
    with use_backend("reference"):
        yield


@st.composite
def geometries(draw, dims=None):
    dims = draw(st.integers(1, 3)) if dims is None else dims
    sizes = st.lists(st.integers(1, 3), min_size=dims, max_size=dims)
    kernel = draw(sizes)
    dilation = draw(sizes)
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    same = draw(st.booleans()) and max(padding) == 0
    return Geometry.make(dims, kernel, draw(sizes), padding, dilation, draw(st.booleans()), same)


def fits(geometry, spatial):
    try:
        geometry.place(spatial)
    except ValueError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(geometry=geometries(), data=st.data())
def test_value_is_the_definition(geometry, data):
    spatial = data.draw(st.lists(st.integers(1, 6), min_size=geometry.dims, max_size=geometry.dims))
    assume(fits(geometry, spatial))
    beta = data.draw(st.sampled_from([1.0, 0.0, -1.5, 0.3, 40.0]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    scale = data.draw(st.sampled_from([1.0, 60.0, 1e4]))
    x = torch.randn(2, 2, *spatial, generator=generator, dtype=torch.float64) * scale
    y = soft_pool_windows(x, geometry, beta)
    expected = oracle.soft_pool(x, geometry, beta)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradient_is_exact(dims):
    torch.manual_seed(0)
    x = torch.randn(1, 2, *[7, 4, 3][:dims], dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    pool = POOLS[dims]
    assert torch.autograd.gradcheck(lambda x, beta: pool(x, 3, 2, 1, beta=beta), (x, beta))
    assert torch.autograd.gradgradcheck(lambda x, beta: pool(x, 3, 2, 1, beta=beta), (x, beta))


def test_gradient_of_the_worked_example():
    """The published CUDA code gives [.043 .043 .043 .870] here: the weights alone."""
    x = torch.tensor([[[0.0, 0.0, 0.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    y = soft_pool1d(x, 4)
    y.sum().backward()
    w = torch.softmax(x.detach(), -1)
    torch.testing.assert_close(x.grad, w * (1 + x.detach() - y.detach()))
    expected = torch.tensor([-0.070, -0.070, -0.070, 1.209], dtype=torch.float64)
    torch.testing.assert_close(x.grad.flatten(), expected, atol=5e-4, rtol=0)
    assert math.isclose(float(x.grad.sum()), 1.0)


def test_channels_do_not_mix():
    """The published CPU code gives 1.50 here: it sums weights over channels."""
    x = torch.tensor([[[3.0, 0.0], [0.0, 3.0]]])
    torch.testing.assert_close(soft_pool1d(x, 2).flatten(), torch.tensor([2.8577, 2.8577]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "plane",
    [
        lambda: torch.zeros(1, 1, 8, 8).index_put((*map(torch.tensor, (0, 0, 3, 3)),), torch.tensor(1e4)),
        lambda: torch.full((1, 1, 8, 8), -200.0),
        lambda: torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 60,
        lambda: torch.full((1, 1, 8, 8), 65000.0),
    ],
    ids=["one 1e4 among zeros", "all -200", "randn*60", "near the limit of fp16"],
)
def test_finite_for_every_finite_input(plane, dtype):
    x = plane().to(dtype).requires_grad_()
    y = soft_pool2d(x, 3, 2, 1)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert y.min() >= x.min()
    assert y.max() <= x.max()
    expected = oracle.soft_pool(x.detach().double(), Geometry.make(2, 3, 2, 1), 1.0)
    tolerance = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    torch.testing.assert_close(y.detach().double(), expected, rtol=tolerance, atol=tolerance)


def test_the_largest_floats_do_not_overflow():
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([[[largest, -largest, largest, -largest]]], requires_grad=True)
    y = soft_pool1d(x, 2)
    y.sum().backward()
    assert torch.equal(y, torch.full_like(y, largest))
    assert torch.equal(x.grad.flatten(), torch.tensor([1.0, 0.0, 1.0, 0.0]))
    mean = soft_pool1d(torch.tensor([[[largest] + [-largest] * 8]]), 9, beta=0.0)
    torch.testing.assert_close(mean / largest, torch.full_like(mean, -7 / 9))


def test_infinities_and_nan_are_as_in_max_pooling():
    inf, nan = math.inf, math.nan
    x = torch.tensor([[[-inf, 1.0, -inf, -inf, inf, 2.0, nan, 0.0]]], requires_grad=True)
    y = soft_pool1d(x, 2)
    assert torch.equal(y[..., :3], torch.tensor([[[1.0, -inf, inf]]]))
    assert y[..., 3].isnan()
    y[..., :3].sum().backward()
    assert torch.equal(x.grad.flatten()[:6], torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("beta", [0.0, 200.0])
def test_beta_0_is_average_and_large_is_max(beta):
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = soft_pool2d(x, 3, 2, 1, ceil_mode=True, beta=beta)
    average = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    maximum = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    torch.testing.assert_close(y, maximum if beta else average, atol=0.02 if beta else 1e-12, rtol=0)


def test_layouts_ranks_and_empty_batches_are_kept():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    y = soft_pool2d(x, 3, 2, 1)
    last = x.to(memory_format=torch.channels_last)
    assert soft_pool2d(last, 3, 2, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(soft_pool2d(last, 3, 2, 1), y)
    assert torch.equal(soft_pool2d(x[0], 3, 2, 1), y[0])
    assert torch.equal(soft_pool2d(x.transpose(2, 3), 3, 2, 1), soft_pool2d(x.transpose(2, 3).contiguous(), 3, 2, 1))
    assert soft_pool2d(x[:0], 3, 2, 1).shape == (0, 4, 3, 3)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 4), (5, 7), (2, None), (9, 9)])
def test_adaptive_windows_are_those_of_torch(sizes):
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(adaptive_soft_pool(x, sizes, 0.0), F.adaptive_avg_pool2d(x, sizes))


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2), (1, 2), (1,)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_global_axes_are_those_of_mean(axes, keepdim):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(global_soft_pool(x, axes, keepdim, 0.0), x.mean(axes, keepdim))


@pytest.mark.parametrize(
    ("x", "error"), [(torch.zeros(2, 3), ValueError), (torch.zeros(1, 1, 4, 4, dtype=torch.int32), TypeError)]
)
def test_what_no_pool_takes_is_refused(x, error):
    with pytest.raises(error):
        soft_pool2d(x, 2)
