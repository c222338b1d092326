"""Costs are measured on copies, in both directions, at both batch sizes, beside what the control shows of itself."""

import copy

import torch
from torch import nn

from poolswap import find_pools, make_plan, swap_pools
from poolswap.ablate.costs import compare_costs

SIZE = (3, 16, 16)


def net(*tail):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), *tail, nn.Flatten())


def swapped(model):
    twin = copy.deepcopy(model)
    swap_pools(twin, make_plan(find_pools(model, SIZE)))
    return twin


def test_every_pass_is_measured_and_nothing_is_changed():
    stock = net(nn.Dropout()).eval()
    other, images = swapped(stock), torch.rand(4, *SIZE)
    before = copy.deepcopy((stock.state_dict(), other.state_dict(), torch.get_rng_state()))
    costs = compare_costs(stock, other, images)
    assert [(c.direction, c.batch) for c in costs] == [
        ("forward", 1),
        ("forward", 4),
        ("training", 1),
        ("training", 4),
    ]
    for cost in costs:
        assert cost.milliseconds > 0
        assert 0 < cost.ratio.low <= cost.ratio.median <= cost.ratio.high
        assert 0 < cost.noise.low <= cost.noise.high
        assert cost.memory > 0
        assert cost.control_memory > 0
    torch.testing.assert_close((stock.state_dict(), other.state_dict(), torch.get_rng_state()), before, rtol=0, atol=0)
    assert not stock.training
    assert all(p.grad is None for model in (stock, other) for p in model.parameters())


def test_a_training_pass_that_one_image_cannot_make_is_left_out():
    stock = net(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)).eval()
    costs = compare_costs(stock, swapped(stock), torch.rand(2, *SIZE))
    assert [(c.direction, c.batch) for c in costs] == [("forward", 1), ("forward", 2), ("training", 2)]


def test_a_single_image_is_measured_once():
    stock = net().eval()
    costs = compare_costs(stock, swapped(stock), torch.rand(1, *SIZE))
    assert [(c.direction, c.batch) for c in costs] == [("forward", 1), ("training", 1)]
