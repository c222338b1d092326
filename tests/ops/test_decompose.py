"""SoftPool in standard operators is SoftPool: against the float64 reference, in torch and through onnxruntime."""

import numpy
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from poolswap.export.trace import in_standard_operators, quiet
from poolswap.functional import soft_pool_windows
from poolswap.geometry import Geometry
from poolswap.ops.branch import branching_decomposition
from poolswap.ops.decompose import soft_pool_decomposition
from poolswap.ops.reference import soft_pool_ref
from poolswap.ops.windows import Windows

BETAS = [1.0, 0.0, -2.0, 40.0, 1e-3, 1e-8]


def ordinary(x):
    return x


def spikes(x):
    """A value in ten of 1e30, up or down."""
    return torch.where(torch.rand_like(x) < 0.1, x.sign() * 1e30, x)


def offset(x):
    return x - 1e4


def constant(x):
    return torch.full_like(x, 3.4e38)


def extremes(x):
    return x.sign() * 3.4e38


VALUES = [ordinary, spikes, offset, constant, extremes]


@st.composite
def cases(draw):
    """(x, geometry, beta): 1 to 3 dimensions, any overlap, padding, dilation, SAME, up to the largest floats."""
    dims = draw(st.integers(1, 3))
    same = draw(st.booleans())
    kernel, stride, padding, dilation, size = [], [], [], [], []
    for _ in range(dims):
        k, d = draw(st.integers(1, 20 if dims == 1 else 4)), draw(st.integers(1, 2))
        extent = (k - 1) * d + 1
        kernel.append(k)
        dilation.append(d)
        stride.append(draw(st.integers(1, 3)))
        padding.append(0 if same else draw(st.integers(0, k // 2)))
        size.append(extent + draw(st.integers(0, 5)))
    geometry = Geometry.make(dims, kernel, stride, padding, dilation, draw(st.booleans()), same)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(2, 2, *size, generator=generator, dtype=torch.float64).clamp(-3, 3)
    magnitude = draw(st.sampled_from([1e-6, 1.0, 30.0, 1e4, 1e38]))
    values = draw(st.sampled_from(VALUES))
    return values((x * magnitude).float()), geometry, draw(st.sampled_from(BETAS))


def assert_is_soft_pool(y, x, geometry, beta, tolerance):
    expected = soft_pool_ref(x.double(), torch.tensor(beta, dtype=torch.float64), Windows.place(geometry, x.shape[2:]))
    real = expected.isfinite()  # a dilated window of nothing but padding gives -inf
    assert torch.equal(torch.as_tensor(y).isfinite(), real)
    assert torch.equal(y[~real].double(), expected[~real])
    gap = (y.double() - expected)[real].abs().max() if real.any() else torch.zeros(())
    # A shift of beta by a rounding error of x moves the weights: the input's magnitude times beta is its condition.
    assert gap <= tolerance * x.double().abs().max()


@settings(max_examples=150)
@given(cases(), st.booleans())
def test_the_decomposition_is_the_reference(case, known):
    x, geometry, beta = case
    y = soft_pool_decomposition(x, beta if known else torch.tensor(beta), *Windows.place(geometry, x.shape[2:]))
    assert_is_soft_pool(y, x, geometry, beta, 2e-6)


class Pool(nn.Module):
    def __init__(self, geometry, beta):
        super().__init__()
        self.geometry = geometry
        self.register_buffer("beta", torch.tensor(beta))

    def forward(self, x):
        return soft_pool_windows(x, self.geometry, self.beta)


def to_onnx(geometry, beta, x, *, branch=False):
    with quiet():
        plain = in_standard_operators(torch.export.export(Pool(geometry, beta), (x,)), branch=branch)
        return torch.onnx.export(plain, dynamo=True, opset_version=20, verbose=False).model_proto


def through_onnxruntime(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(numpy.array(y))


@settings(max_examples=5)
@given(cases())
def test_onnxruntime_agrees_with_the_reference(case):
    x, geometry, beta = case
    model = to_onnx(geometry, beta, x)
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    assert_is_soft_pool(through_onnxruntime(model, x), x, geometry, beta, 1e-5)


def test_half_precision_goes_through_float32():
    geometry = Geometry.make(2, 3, 2, 1)
    x = (torch.randn(2, 3, 9, 9) * 2e4).clamp(-6e4, 6e4).half()
    y = through_onnxruntime(to_onnx(geometry, 1.0, x), x)
    assert y.dtype == torch.float16
    assert_is_soft_pool(y, x, geometry, 1.0, 1e-3)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(64, 31, 4), (200, 200, 1)])
def test_large_windows_make_small_graphs(size, kernel, stride):
    x = torch.randn(1, 2, size, size)
    geometry = Geometry.make(2, kernel, stride)
    model = to_onnx(geometry, 1.0, x)
    assert len(model.graph.node) < 80
    assert_is_soft_pool(through_onnxruntime(model, x), x, geometry, 1.0, 1e-5)


# (geometry, size of the input, beta): padding that average pooling adds, padding that it cannot, and none.
BRANCHING = [
    pytest.param(Geometry.make(2, 3, 1, 1), (9, 8), 1.0, marks=pytest.mark.slow),
    (Geometry.make(2, 3, 2, 0, ceil_mode=True), (8, 8), 1.0),
    pytest.param(Geometry.make(2, 3, 2, 0, same=True), (8, 7), -2.0, marks=pytest.mark.slow),
    pytest.param(Geometry.make(2, 2, 2), (7, 8), 40.0, marks=pytest.mark.slow),
    pytest.param(Geometry.make(1, 5, 1, 2), (11,), 1e-3, marks=pytest.mark.slow),
    pytest.param(Geometry.make(3, (1, 3, 3), (1, 2, 2), (0, 1, 1)), (2, 7, 7), 1.0, marks=pytest.mark.slow),
]


def alternating(x):
    return torch.where(torch.arange(x.numel()).reshape(x.shape) % 2 > 0, 1.0, -1.0)


def deep(x):
    """Every other value far below the others, down to the lowest."""
    return torch.where(alternating(x) > 0, x, -3e38 * torch.rand_like(x))


@pytest.mark.skipif(torch.__version__ < (2, 14), reason="torch 2.7 and 2.8 export no padded window under a condition")
@pytest.mark.parametrize(("geometry", "size", "beta"), BRANCHING)
def test_both_sides_of_the_branch_are_the_reference(geometry, size, beta):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    model = to_onnx(geometry, beta, x, branch=True)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("AveragePool") == 2
    assert ("Pad" in kinds) == (geometry.ceil_mode or geometry.same)
    (branch,) = (node for node in model.graph.node if node.op_type == "If")
    sides = {side.name: [node.op_type for node in side.g.node] for side in branch.attribute}
    assert sides["then_branch"] == ["Identity"]
    assert "MaxPool" in sides["else_branch"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(branch.input[0], onnx.TensorProto.BOOL, []))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    cases = [
        (x / beta, True),
        (x * (20 / beta), True),
        (alternating(x) * (70 / beta), True),
        (torch.full_like(x, -65 / beta), True),
        (torch.full_like(x, -75 / beta), False),
        (torch.full_like(x, 85 / beta), False),
        *((hostile(x * scale), None) for hostile in VALUES for scale in (1e-6, 30.0, 1e4, 1e38)),
    ]
    for values, takes_the_common_form in cases:
        y, decided = session.run(None, {session.get_inputs()[0].name: values.numpy()})
        assert takes_the_common_form in (None, bool(decided))
        assert_is_soft_pool(torch.from_numpy(y), values, geometry, beta, 2e-6)
    # Elements that underflow leave the others their precision.
    values = deep(x / abs(beta)) * (1.0 if beta > 0 else -1.0)
    y, decided = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    windows = Windows.place(geometry, x.shape[2:])
    expected = soft_pool_ref(values.double(), torch.tensor(beta, dtype=torch.float64), windows)
    assert decided
    assert (torch.from_numpy(y) - expected).abs().max() < 5e-6 / abs(beta)


@pytest.mark.parametrize(
    ("geometry", "beta"),
    [
        (Geometry.make(2, 3, 1, 1, 2), 1.0),
        (Geometry.make(2, 6), 1.0),
        (Geometry.make(2, 2), 0.0),
        (Geometry.make(2, 2), 1e4),
    ],
)
def test_there_is_no_branch_where_it_would_not_be_exact_or_not_cheaper(geometry, beta):
    x = torch.randn(1, 2, 6, 6)
    windows = Windows.place(geometry, x.shape[2:])
    graph = make_fx(lambda x: branching_decomposition(x, beta, *windows))(x).graph
    assert "cond" not in {str(node.target) for node in graph.nodes}
    assert torch.equal(branching_decomposition(x, beta, *windows), soft_pool_decomposition(x, beta, *windows))
