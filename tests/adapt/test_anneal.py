"""Beta starts at the stock layer, ends at the plan's value, and its gradient is exact."""

import pytest
import torch
from adapt.small import net

from poolswap.adapt.anneal import MAX_BETA, Annealing
from poolswap.adapt.betas import layer_betas
from poolswap.functional import soft_pool2d


def test_beta_goes_from_the_stock_layers_to_the_plans_own():
    model, _, plan = net()
    kinds = {swap.site.path: swap.site.op for swap in plan.swaps}
    assert set(kinds.values()) == {"max", "avg"}
    annealing = Annealing(model, plan, 0.5)
    for progress, expected in ((0.0, (MAX_BETA, 0.0)), (0.25, (MAX_BETA**0.5, 0.5)), (0.5, (1.0, 1.0))):
        annealing.set([model], progress)
        for layer in layer_betas(model, plan):
            assert layer.beta == pytest.approx([expected[kinds[layer.path] == "avg"]], rel=1e-5)
    model.maxpool.beta.fill_(1.5)
    annealing.set([model], 0.75)
    assert float(model.maxpool.beta) == 1.5  # the way is behind: the optimiser has it


def test_at_its_start_the_model_answers_nearly_as_the_stock_one():
    stock, _, _ = net(swap=False)
    model, _, plan = net()
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = (model(x) - stock(x)).norm() / stock(x).norm()
        Annealing(model, plan, 1.0).set([model], 0.0)
        after = (model(x) - stock(x)).norm() / stock(x).norm()
    assert after < before / 5


def test_without_a_way_nothing_is_touched():
    model, _, plan = net()
    model.maxpool.beta.fill_(3)
    Annealing(model, plan, 0.0).set([model], 0.0)
    assert float(model.maxpool.beta) == 3


def test_the_gradient_of_beta_is_the_variance_of_the_window():
    """dy/dbeta = sum_i w_i (x_i - y)^2, the weighted variance."""
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    beta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = soft_pool2d(x, (2, 3), beta=beta)
    (gradient,) = torch.autograd.grad(y.sum(), beta)
    weights = (0.7 * x).flatten().softmax(0)
    mean = (weights * x.flatten()).sum()
    torch.testing.assert_close(gradient, (weights * (x.flatten() - mean) ** 2).sum())
