"""An optimizer made before the swap trains what the swap brought, as the layers beside it are trained."""

import torch
from torch import nn

from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

SIZE = (3, 16, 16)


def net():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    return nn.Sequential(body, nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def plan(model, **options):
    return make_plan(find_pools(model, SIZE), **options)


def test_a_new_parameter_is_trained_in_the_group_beside_it():
    model = net()
    groups = [{"params": model[1:].parameters(), "lr": 0.1}, {"params": model[0].parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups)
    swap_pools(model, plan(model, to="soft:beta=learn"), optimizers=[optimizer])
    beta = model[0][1].beta
    assert [any(p is beta for p in group["params"]) for group in optimizer.param_groups] == [False, True]
    model(torch.randn(2, *SIZE)).sum().backward()
    before = beta.item()
    optimizer.step()
    assert beta.item() != before


def test_only_the_optimizer_of_its_neighbours_takes_it():
    model = net()
    body, head = torch.optim.SGD(model[0].parameters(), 0.1), torch.optim.Adam(model[4].parameters())
    swap_pools(model, plan(model, to="soft:beta=learn"), optimizers=[body, head])
    assert [len(o.param_groups[0]["params"]) for o in (body, head)] == [3, 2]


def test_a_replaced_classifier_leaves_its_optimizer():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.randn(2, *SIZE)).sum().backward()
    optimizer.step()
    old = model[4].weight
    swap_pools(model, plan(model, to="spp", include_global=True), optimizers=[optimizer])
    held = optimizer.param_groups[0]["params"]
    assert not any(p is old for p in held)
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert old not in optimizer.state


def test_without_parameters_nothing_changes():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = optimizer.state_dict()
    swap_pools(model, plan(model), optimizers=[optimizer])
    assert optimizer.state_dict() == before
