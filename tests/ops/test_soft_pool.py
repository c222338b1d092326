"""What torch.library promises of `poolswap::soft_pool`, on every backend that runs on the CPU."""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from poolswap.functional import soft_pool1d, soft_pool2d, soft_pool3d
from poolswap.ops import soft_pool, use_backend
from poolswap.ops.backend import BACKENDS
from poolswap.ops.decompose import soft_pool_decomposition
from poolswap.ops.windows import Windows

HOST = [name for name, backend in BACKENDS.items() if backend.device in (None, "cpu")]
POOLS = {1: soft_pool1d, 2: soft_pool2d, 3: soft_pool3d}


@pytest.fixture(params=HOST, autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    reason = BACKENDS[request.param].unavailable()
    if reason:
        pytest.skip(reason)
    with use_backend(request.param):
        yield request.param


def beta(value: float = 1.0, **options: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, **options)


WINDOWS = Windows((3, 2), (2, 1), (1, 0), (1, 2), (3, 3))


def sample(dtype: torch.dtype = torch.float32, channels_last: bool = False, grad: bool = True) -> Tensor:
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.contiguous(memory_format=layout).requires_grad_(grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("learn_beta", [False, True])
def test_opcheck_accepts_schema_fake_and_autograd(channels_last: bool, learn_beta: bool) -> None:
    x = sample(channels_last=channels_last)
    torch.library.opcheck(torch.ops.poolswap.soft_pool, (x, beta(requires_grad=learn_beta), *WINDOWS))
    y = soft_pool(x.detach(), beta(), WINDOWS)
    arguments = (torch.randn_like(y), x.detach(), beta(), *WINDOWS)
    torch.library.opcheck(torch.ops.poolswap.soft_pool_backward, arguments)
    torch.library.opcheck(torch.ops.poolswap.soft_pool_gradients, arguments)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 1, "padding": 1}, {"stride": 2, "ceil_mode": True}, {"dilation": 2}]
)
@pytest.mark.parametrize("learn_beta", [False, True])
def test_gradient_is_exact(dims: int, options: dict[str, int], learn_beta: bool) -> None:
    size = {1: (11,), 2: (6, 7), 3: (5, 6, 5)}[dims]
    x = torch.randn(2, *size, dtype=torch.float64, requires_grad=True)
    pool = POOLS[dims]
    inputs = (x, beta(0.7, requires_grad=learn_beta))
    assert torch.autograd.gradcheck(lambda x, b: pool(x, 3, **options, beta=b), inputs)


BETAS = torch.tensor([0.7, -2.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_beta_for_each_channel_pools_each_channel_with_its_own(channels_last: bool) -> None:
    x, betas = sample(torch.float64, channels_last), BETAS.clone().requires_grad_()
    y = soft_pool(x, betas, WINDOWS)
    apart = [soft_pool(x[:, c : c + 1], b, WINDOWS) for c, b in enumerate(betas)]
    torch.testing.assert_close(y, torch.cat(apart, 1))
    grad = torch.randn_like(y)
    gradients = torch.autograd.grad(y, (x, betas), grad)
    torch.testing.assert_close(gradients, torch.autograd.grad(torch.cat(apart, 1), (x, betas), grad))
    assert torch.equal(soft_pool(x, betas.detach(), WINDOWS), y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # opcheck's own
def test_a_beta_for_each_channel_is_differentiated_compiled_mapped_and_traced() -> None:
    x, betas = sample(torch.float64), BETAS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, b: soft_pool2d(x, 3, 2, 1, beta=b), (x, betas))
    assert torch.autograd.gradgradcheck(lambda x, b: soft_pool(x, b, WINDOWS), (x, betas), atol=1e-6)
    torch.library.opcheck(torch.ops.poolswap.soft_pool, (x, betas, *WINDOWS))
    x = x.detach()
    expected = soft_pool(x, BETAS, WINDOWS)
    assert torch.equal(torch.vmap(lambda x: soft_pool(x, BETAS, WINDOWS))(x), expected)
    jacobian = torch.func.jacrev(lambda b: soft_pool(x, b, WINDOWS).sum((0, 2, 3)))(BETAS)
    torch.testing.assert_close(jacobian, jacobian.diagonal().diag())
    for windows in (
        WINDOWS,
        Windows((6, 2), (1, 1), (0, 0), (1, 1), (1, 4)),
        Windows((1, 1), (6, 5), (0, 0), (1, 1), (1, 1)),
    ):
        torch.testing.assert_close(soft_pool_decomposition(x, BETAS, *windows), soft_pool(x, BETAS, windows))


def test_a_beta_of_another_shape_is_refused() -> None:
    x = sample()
    for shape in [(2,), (4,), (3, 1), (1, 3, 1, 1), (0,)]:
        for pool in (soft_pool, lambda x, b, w: torch.ops.poolswap.soft_pool(x, b, *w)):
            with pytest.raises(ValueError, match=r"beta has one element or one for each of 3 channels"):
                pool(x, torch.ones(shape), WINDOWS)
    assert soft_pool(x, torch.ones(1, 1), WINDOWS).shape == (2, 3, 3, 3)


@pytest.mark.parametrize("learn_beta", [False, True])
def test_double_backward_is_exact(learn_beta: bool) -> None:
    inputs = (sample(torch.float64), beta(0.7, requires_grad=learn_beta))
    assert torch.autograd.gradgradcheck(lambda x, b: soft_pool(x, b, WINDOWS), inputs, atol=1e-6)


class Recorder(TorchDispatchMode):
    """The operators of poolswap that pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator.namespace == "poolswap":
            self.seen.append(operator._opname)
        return operator(*args, **(kwargs or {}))


def test_whoever_looks_on_sees_the_operators_that_eager_calls_go_past() -> None:
    x = sample()
    expected = torch.autograd.grad(soft_pool(x, beta(), WINDOWS).square().sum(), x)[0]
    with Recorder() as recorder:
        got = torch.autograd.grad(soft_pool(x, beta(), WINDOWS).square().sum(), x)[0]
    assert recorder.seen == ["soft_pool", "soft_pool_backward"]
    assert torch.equal(got, expected)

    class Own(Tensor):
        pass

    own = x.detach().as_subclass(Own)
    assert type(soft_pool(own, beta(), WINDOWS)) is Own
    traced = make_fx(lambda x: soft_pool(x, beta(), WINDOWS))(x.detach())
    assert "poolswap.soft_pool" in traced.code


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # forward_ad's own
def test_forward_mode_is_the_directional_derivative() -> None:
    x, b = sample(torch.float64, grad=False), beta(0.7)
    along = (torch.randn_like(x), torch.randn_like(b))
    y, moved = torch.func.jvp(lambda x, b: soft_pool(x, b, WINDOWS), (x, b), along)
    jacobian = torch.autograd.functional.jacobian(lambda x, b: soft_pool(x, b, WINDOWS), (x, b))
    torch.testing.assert_close(y, soft_pool(x, b, WINDOWS))
    expected = torch.einsum("bchwijkl,ijkl->bchw", jacobian[0], along[0]) + jacobian[1] * along[1]
    torch.testing.assert_close(moved, expected)
    with forward_ad.dual_level():
        dual = soft_pool(forward_ad.make_dual(x, along[0]), forward_ad.make_dual(b, along[1]), WINDOWS)
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, moved)


def test_views_that_are_negated_lazily_are_read_as_what_they_mean() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    assert torch.equal(soft_pool(x, beta(), WINDOWS), soft_pool(x.resolve_neg().clone(), beta(), WINDOWS))


def test_a_number_first_seen_in_inference_mode_serves_training_too() -> None:
    with torch.inference_mode():
        soft_pool2d(sample(grad=False), 2, beta=0.8125)
    x = sample()
    soft_pool2d(x, 2, beta=0.8125).sum().backward()
    assert x.grad is not None


def test_sizes_are_any_sequence_of_ints() -> None:
    x = sample(grad=False)
    expected = soft_pool2d(x, (3, 2), (2, 1), (1, 0))
    for kind in (list, UserList, torch.Size):
        assert torch.equal(soft_pool2d(x, kind([3, 2]), kind([2, 1]), kind([1, 0])), expected)
    with pytest.raises(TypeError):
        soft_pool2d(x, 2.0)  # type: ignore[arg-type]


def test_meta_tensors_need_no_implementation() -> None:
    x = sample(channels_last=True)
    y, meta = soft_pool(x, beta(), WINDOWS), soft_pool(x.detach().to("meta").requires_grad_(), beta(), WINDOWS)
    assert (meta.device.type, meta.shape, meta.stride()) == ("meta", y.shape, y.stride())


def test_a_frozen_input_leaves_nothing_to_record() -> None:
    assert soft_pool(sample(grad=False), beta(), WINDOWS).grad_fn is None
    with torch.inference_mode():
        assert soft_pool(sample(grad=False), beta(), WINDOWS).is_inference()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_without_a_graph_break() -> None:
    def network(x: Tensor) -> Tensor:
        return soft_pool2d(x.relu(), 3, 2, 1).sum(1)

    x = sample()
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), network(x))
    expected, got = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (network, compiled))
    torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_exports_with_a_dynamic_batch() -> None:
    class Network(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return soft_pool2d(x, 3, 2, 1)

    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Network(), (sample(grad=False),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 6, 5)
    torch.testing.assert_close(program.module()(x), Network()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_dtype_that_comes_in(dtype: torch.dtype) -> None:
    x = sample(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = soft_pool2d(x, 3, 2, 1)
    y.float().sum().backward()
    assert y.dtype == dtype
    assert x.grad is not None
    assert x.grad.dtype == dtype
    torch.testing.assert_close(y.float(), soft_pool2d(x.float(), 3, 2, 1), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("in_dim", [0, 2])
def test_vmap_is_one_more_leading_dimension(in_dim: int) -> None:
    x = torch.randn(4, 2, 3, 6, 5)
    mapped = torch.vmap(lambda x: soft_pool(x, beta(), WINDOWS), in_dims=in_dim)(x.movedim(0, in_dim))
    torch.testing.assert_close(mapped, torch.stack([soft_pool(part, beta(), WINDOWS) for part in x]))


def test_vmap_over_beta_is_a_pool_for_each() -> None:
    x, betas = sample(grad=False), torch.tensor([0.0, 1.0, 3.0])
    mapped = torch.vmap(lambda b: soft_pool(x, b, WINDOWS))(betas)
    torch.testing.assert_close(mapped, torch.stack([soft_pool(x, b, WINDOWS) for b in betas]))
    with pytest.raises(NotImplementedError, match="one beta for the whole batch"):
        torch.vmap(lambda b: torch.ops.poolswap.soft_pool(x, b, *WINDOWS))(betas)


@pytest.mark.parametrize("learn_beta", [False, True])
def test_what_follows_may_write_over_the_output(learn_beta: bool) -> None:
    x, b = sample(), beta(0.7, requires_grad=learn_beta)
    expected = torch.autograd.grad(soft_pool(x, b, WINDOWS).add(1).relu().sum(), x)[0]
    got = torch.autograd.grad(soft_pool(x, b, WINDOWS).add_(1).relu_().sum(), x)[0]
    assert torch.equal(got, expected)


def test_nothing_is_saved_but_the_input_and_beta() -> None:
    saved: list[Tensor] = []
    x = sample()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = soft_pool(x, beta(), WINDOWS)
    assert y.grad_fn is not None
    assert {t.data_ptr() for t in saved if t.numel() > 1} == {x.data_ptr()}


@pytest.mark.parametrize("channels_last", [False, True])
def test_fake_tensors_have_the_real_shape_and_layout(channels_last: bool) -> None:
    x = sample(channels_last=channels_last, grad=False)
    y = soft_pool(x, beta(), WINDOWS)
    with FakeTensorMode() as mode:
        fake = soft_pool(mode.from_tensor(x), torch.ones((), dtype=torch.float64), WINDOWS)
    assert (fake.shape, fake.stride(), fake.dtype) == (y.shape, y.stride(), y.dtype)
