"""Operators that draw leave the random numbers of the layers after them as they were."""

import copy

import torch
from torch import nn

from poolswap import find_pools, make_plan, swap_pools
from poolswap.adapt.draws import own_draws


def net():
    return nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.5), nn.MaxPool2d(2), nn.Dropout(0.5)).train()


def masks(model, paths):
    """Which elements the last dropout leaves, and the pooled values, of a step with seed 7."""
    seen = {}
    model[0].register_forward_hook(lambda m, a, y: seen.update(first=y.clone()))
    model[2].register_forward_hook(lambda m, a, y: seen.update(second=y.clone()))
    with own_draws(model, paths):
        torch.manual_seed(7)
        y = model(torch.ones(1, 4, 16, 16) + torch.arange(16.0))
    return y != 0, seen, torch.rand(3)


def test_the_dropout_after_a_pool_that_draws_is_the_controls():
    stock, drawing = net(), net()
    plan = make_plan(find_pools(stock, (4, 16, 16)), "all", "stochastic", input_size=(4, 16, 16))
    swap_pools(drawing, plan)
    kept, _, after = masks(stock, ())
    mine, seen, mine_after = masks(drawing, plan.paths)
    assert torch.equal(after, mine_after)
    alive = seen["second"] != 0  # a window that dropout emptied has nothing to draw
    assert torch.equal(mine[alive], kept[alive])
    _, again, _ = masks(drawing, plan.paths)
    assert torch.equal(seen["first"], again["first"])  # a step draws the same again: a resumed training does
    assert len(seen["first"].unique()) > 8  # and does draw


def test_two_pools_draw_for_themselves_and_no_hook_is_left():
    model = nn.Sequential(nn.MaxPool2d(2)).train()
    swap_pools(model, make_plan(find_pools(model, (1, 8, 8)), "all", "stochastic", input_size=(1, 8, 8)))
    pools = nn.ModuleList([model[0], copy.deepcopy(model[0])])
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with own_draws(pools, ("0", "1")):
        torch.manual_seed(1)
        assert not torch.equal(pools[0](image), pools[1](image))
    assert not any(pool._forward_hooks or pool._forward_pre_hooks for pool in pools)
