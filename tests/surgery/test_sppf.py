"""Windows of 5, 9 and 13 with stride 1, as spatial pyramids in detectors have them: ordinary sites."""

import copy
import importlib.util

import pytest
import torch
from torch import nn

from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 64, 64)


class SPP(nn.Module):
    """Maxima of three window sizes beside the map itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 4, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x):
        x = self.conv(x)
        return torch.cat([x, *(pool(x) for pool in self.pools)], 1).mean((2, 3))


@pytest.mark.parametrize("to", ["soft", "soft:beta=channel", "lse", "avg"])
def test_large_windows_with_stride_1_are_swapped_and_trained(to):
    torch.manual_seed(0)
    model, x = SPP(), torch.randn(2, *SIZE)
    before = model(x)
    plan = make_plan(find_pools(model, SIZE), "all", to)
    assert plan.paths == ("pools.0", "pools.1", "pools.2")
    swap_pools(model, plan)
    assert model(x).shape == before.shape
    model(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    restore(model)
    assert torch.equal(model(x), before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ultralytics' own
@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="ultralytics is not installed")
def test_yolov8n_of_its_yaml_is_swapped_and_trained():
    """SPPF is one pool that runs three times."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model, x = DetectionModel("yolov8n.yaml", verbose=False).eval(), torch.rand(1, *SIZE)
    before = model(x)[0]
    sites = find_pools(model, SIZE)
    assert {str(site.call) for site in sites} == {"5x5/1 p2"}
    plan = make_plan([site for site in sites if site.scope == "window"], "#1", "soft:beta=channel")
    assert len(plan.swaps) == 3
    (swapped,) = swap_pools(model, plan).swapped
    assert model(x)[0].shape == before.shape
    trained = copy.deepcopy(model).train()
    sum(y.square().mean() for y in trained(x)["feats"]).backward()
    grad = trained.get_submodule(swapped.path).beta.grad
    assert grad is not None
    assert grad.abs().max() > 0
    restore(model)
    assert torch.equal(model.eval()(x)[0], before)
