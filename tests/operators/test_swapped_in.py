"""The operators inside models: found, swapped, trained, saved, loaded."""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from nets import Mixed
from pools import VARIANTS
from torch import nn

from poolswap.checkpoint import default_name, load_checkpoint, save_checkpoint, verify_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.load import load_model
from poolswap.nn import WindowSite
from poolswap.nn.stock import MaxPool
from poolswap.nn.windows import PlainPool, window_mean
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 32, 32)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_network_trains_with_it_and_comes_back(name):
    torch.manual_seed(0)
    model, x = Mixed(), torch.randn(2, *SIZE)
    before = model.eval()(x)
    report = swap_pools(model, make_plan(find_pools(model, SIZE), "all", name))
    assert len(report.swapped) == 4
    assert model(x).shape == before.shape
    trained = copy.deepcopy(model).train()
    trained(x).square().sum().backward()
    for swapped in report.swapped:
        module = trained.get_submodule(swapped.path)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    restore(model)
    assert torch.equal(model.eval()(x), before)


def test_a_swap_starts_as_the_stock_layer_or_as_published():
    torch.manual_seed(0)
    model, x = Mixed().eval(), torch.randn(2, *SIZE)
    before, sites = model(x), find_pools(model, SIZE)
    moved = {}
    for init in ("identity", "published"):
        swapped = copy.deepcopy(model)
        swap_pools(swapped, make_plan(sites, "all", "mixed", op="max", init=init))
        moved[init] = (swapped(x) - before).norm() / before.norm()
    assert moved["identity"] < 0.01 < moved["published"]


@pytest.mark.parametrize(("weights", "start"), [([], "published"), (["--init", "identity"], None)])
def test_random_weights_start_as_published_unless_it_is_said(weights, start, capsys):
    assert main(["convert", "test_resnet", "--to", "dpp", "--dry-run", "--json", *weights]) == 0
    swap = json.loads(capsys.readouterr().out)["swaps"][0]
    assert swap["init"] == (start or "identity")


def test_only_the_outermost_of_two_nested_operators_ends_the_search_for_sites():
    class Nested(PlainPool):
        def __init__(self, site):
            super().__init__(site)
            self.inner = MaxPool(site)

        def pool(self, x):
            return self.inner(x) + window_mean(x, self.geometry)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Nested(WindowSite(Geometry.make(2, 2))), nn.Conv2d(4, 4, 3))
    assert find_pools(model, SIZE) == []


@pytest.mark.parametrize("name", ["mixed", "lip", "blur", "stochastic"])
def test_what_was_swapped_in_has_no_sites_of_its_own(name):
    model = Mixed().eval()
    swap_pools(model, make_plan(find_pools(model, SIZE), "all", name))
    assert [site.op for site in find_pools(model, SIZE) if site.scope == "window" and site.only is None] == []


def test_different_operators_at_different_sites(tmp_path):
    model, spec = load_model("test_resnet", input_size=SIZE)
    sites = find_pools(model, SIZE)
    names = [name for name in VARIANTS if name != "blur:of=avg"]
    for name in names:
        plan = make_plan(sites, None, swaps=[("#1", name)])
        assert [swap.to for swap in plan.swaps] == [name.partition(":")[0]]
    plan = make_plan(sites, "all", "dpp:asymmetric=true", swaps=[("#1", "lip")], model=spec.reference, input_size=SIZE)
    swap_pools(model, plan)
    save_checkpoint(model, tmp_path / "net.safetensors", spec=spec, plan=plan)
    assert verify_checkpoint(tmp_path / "net.safetensors").ok


@pytest.mark.parametrize("name", ["max", "lp:p=3,learn=true", "gated:per_channel=true", "s3:grid=4"])
def test_its_checkpoint_verifies(name, tmp_path):
    model, spec = load_model("test_resnet", input_size=SIZE)
    plan = make_plan(find_pools(model, SIZE), "all", name, model=spec.reference, input_size=SIZE)
    swap_pools(model, plan)
    save_checkpoint(model, tmp_path / "net.safetensors", spec=spec, plan=plan)
    assert verify_checkpoint(tmp_path / "net.safetensors").ok


def test_a_checkpoint_runs_a_users_operator_only_if_it_is_trusted(tmp_path):
    ran = tmp_path / "ran"
    file = tmp_path / "pool.py"
    file.write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n"
        "from poolswap.nn.stock import MaxPool\n"
        "class Mine(MaxPool):\n    pass\n"
    )
    model, spec = load_model("test_resnet", input_size=SIZE)
    plan = make_plan(find_pools(model, SIZE), "all", f"{file}:Mine", model=spec.reference, input_size=SIZE)
    assert default_name(spec.name, plan.operators) == "test_resnet-Minepool.safetensors"
    swap_pools(model, plan)
    path = tmp_path / "net.safetensors"
    save_checkpoint(model, path, spec=spec, plan=plan)
    ran.unlink()
    os.utime(file, ns=(0, 1))  # as in another process, where the file has not been run
    with pytest.raises(InputError, match="loading it would run that file"):
        load_checkpoint(path)
    assert not ran.exists()
    assert type(load_checkpoint(path, trust_code=True)[0].get_submodule(plan.paths[0])).__name__ == "Mine"
    assert ran.exists()


def test_a_plan_runs_a_users_operator_only_if_it_is_named_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("pool.py").write_text("from poolswap.nn.stock import MaxPool\nclass Mine(MaxPool):\n    pass\n")
    convert = ["convert", "test_resnet", "--input-size", "3,32,32", "--force", "--json"]
    assert main([*convert, "--to", "pool.py:Mine", "--plan-out", "plan.yaml", "--dry-run"]) == 0
    assert main([*convert, "--plan", "plan.yaml"]) == 2
    assert "has not been run" in capsys.readouterr().err
    assert main([*convert, "--plan", "plan.yaml", "--to", "pool.py:Mine"]) == 0
