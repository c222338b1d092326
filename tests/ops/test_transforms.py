"""torch.func over SoftPool gives what autograd does, by the kernels and by the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, stack_module_state, vjp, vmap

from poolswap.functional import soft_pool2d
from poolswap.nn import SoftPool2d
from poolswap.ops import cpu, reference, use_backend

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script`"),  # torch.func's own
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
]


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "cpu" and cpu.unavailable():
        pytest.skip(str(cpu.unavailable()))
    with use_backend(request.param):
        yield


def pool(x: Tensor, beta: Tensor) -> Tensor:
    return soft_pool2d(x, 3, 2, 1, beta=beta)


def loss(x: Tensor, beta: Tensor) -> Tensor:
    return pool(x, beta).square().sum()


def sample(*leading: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*leading, 2, 4, 5, generator=generator, dtype=torch.float64), torch.tensor(0.7).double()


def test_grad_is_that_of_autograd() -> None:
    inputs = sample(1)
    expected = torch.autograd.grad(loss(*(leaves := [t.clone().requires_grad_() for t in inputs])), leaves)
    torch.testing.assert_close(grad(loss, (0, 1))(*inputs), expected)
    y, pull = vjp(pool, *inputs)
    torch.testing.assert_close(pull(2 * y), expected)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians_are_those_of_autograd(jacobian: Callable[..., Callable[..., tuple[Tensor, Tensor]]]) -> None:
    inputs = sample(1)
    expected = torch.autograd.functional.jacobian(pool, inputs)
    torch.testing.assert_close(jacobian(pool, (0, 1))(*inputs), expected)


@pytest.mark.parametrize(
    "second", [hessian, lambda f, n: jacrev(jacrev(f, n), n), lambda f, n: jacrev(jacfwd(f, n), n)]
)
def test_second_derivatives_are_those_of_autograd(second: Callable[..., Callable[..., Tensor]]) -> None:
    inputs = sample(1)
    expected = torch.autograd.functional.hessian(loss, inputs)
    torch.testing.assert_close(second(loss, (0, 1))(*inputs), expected)


def test_a_third_derivative() -> None:
    x, beta = sample(1)
    step = 1e-5
    along = torch.ones_like(x)

    def second(x: Tensor) -> Tensor:
        return grad(lambda x: (grad(loss)(x, beta) * along).sum())(x)

    third = grad(lambda x: (second(x) * along).sum())(x)
    numeric = (second(x + step * along) - second(x - step * along)) / (2 * step)
    torch.testing.assert_close(third, numeric, rtol=1e-5, atol=1e-7)


def test_a_gradient_for_every_sample() -> None:
    xs, beta = sample(3, 1)
    got = vmap(grad(loss, (0, 1)), in_dims=(0, None))(xs, beta)
    each = [grad(loss, (0, 1))(x, beta) for x in xs]
    torch.testing.assert_close(got, tuple(torch.stack(parts) for parts in zip(*each, strict=True)))


def test_a_gradient_for_every_beta() -> None:
    x, _ = sample(1)
    betas = torch.tensor([0.0, 1.0, 3.0]).double()
    got = vmap(grad(loss, (0, 1)), in_dims=(None, 0))(x, betas)
    each = [grad(loss, (0, 1))(x, beta) for beta in betas]
    torch.testing.assert_close(got, tuple(torch.stack(parts) for parts in zip(*each, strict=True)))


def test_a_module_with_a_beta_to_learn() -> None:
    module, (xs, _) = SoftPool2d(2, beta="learn").double(), sample(3, 1)
    weights = dict(module.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(module, weights, (x,)).square().sum()

    got = vmap(grad(loss), in_dims=(None, 0))(weights, xs)
    each = [grad(loss)(weights, x)["beta"] for x in xs]
    torch.testing.assert_close(got["beta"], torch.stack(each))


def test_the_kernel_runs_for_grad_and_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    xs, beta = sample(3, 1)
    for name in ("forward", "backward"):
        monkeypatch.setattr(reference, name, lambda *arguments: pytest.fail("the reference ran"))
    with use_backend("auto"):
        vmap(grad(loss), in_dims=(0, None))(xs, beta)


def test_an_ensemble_maps_weights_and_beta_together() -> None:
    torch.manual_seed(0)
    models = [torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), SoftPool2d(2, beta=beta)) for beta in (0.5, 2.0)]
    x = torch.randn(2, 2, 8, 8)
    outputs = vmap(lambda *state: functional_call(models[0], state, (x,)))(*stack_module_state(models))
    torch.testing.assert_close(outputs, torch.stack([model(x) for model in models]))
