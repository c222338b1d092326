"""A swap that says it replaced a pool did: one forward of the model itself shows it, or nothing is changed."""

import pytest
import torch
from kernels import window_kernels
from torch import nn
from torch.nn import functional as F

from poolswap.cli.app import main
from poolswap.errors import CheckError, InputError
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 16, 16)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)

    def forward(self, x):
        return self.conv(x)


class InAList(Net):
    """The layer is registered, and what runs is another reference to it."""

    def __init__(self):
        super().__init__()
        self.pools = [self.pool]

    def forward(self, x):
        return self.pools[0](self.conv(x))


class Half(InAList):
    """One of two calls goes by the other reference."""

    def forward(self, x):
        return self.pools[0](self.pool(self.conv(x)))


def in_a_closure():
    model = Net()
    model.conv.register_forward_hook(lambda module, args, y: model.pool(y))
    return model


FOOLED = {"list": InAList, "half": Half, "closure": in_a_closure}


@pytest.mark.parametrize("name", FOOLED)
def test_a_stock_layer_that_still_runs_is_an_error_and_the_model_is_as_it_was(name):
    model = FOOLED[name]().eval()
    x = torch.randn(1, *SIZE)
    expected, kinds = model(x), [type(module) for module in model.modules()]
    plan = make_plan(find_pools(model, SIZE))
    with pytest.raises(CheckError, match="something else holds the layer") as error:
        swap_pools(model, plan)
    assert f"exclude=['{plan.paths[0]}']" in error.value.hint
    assert torch.equal(model(x), expected)
    assert [type(module) for module in model.modules()] == kinds


@pytest.mark.parametrize("hook", [lambda m, a, y: F.max_pool2d(y, 2), lambda m, a, y: F.avg_pool2d(y, 2)])
def test_a_call_in_a_childs_hook_is_replaced_where_it_runs(hook):
    model = Net().eval()
    model.conv.register_forward_hook(hook)
    x = torch.randn(1, *SIZE)
    expected = model(x)
    swap_pools(model, make_plan(find_pools(model, SIZE)))
    assert window_kernels(model, x) == []
    assert not torch.equal(model(x), expected)
    restore(model)
    assert torch.equal(model(x), expected)


def test_a_pool_in_a_bound_hook_is_replaced():
    class Bound(Net):
        def __init__(self):
            super().__init__()
            self.conv.register_forward_hook(self.after)

        def after(self, module, args, y):
            return self.pool(y)

    model = Bound().eval()
    swap_pools(model, make_plan(find_pools(model, SIZE)))
    assert window_kernels(model, torch.randn(1, *SIZE)) == []


def test_the_proof_leaves_mode_generator_and_gradients():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Dropout()).train()
    model[3].eval()
    state, mean = torch.get_rng_state(), model[1].running_mean.clone()
    swap_pools(model, make_plan(find_pools(model, SIZE)))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, True, True, False]
    assert torch.equal(model[1].running_mean, mean)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_plan_without_a_size_needs_an_example():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    plan = make_plan(find_pools(model, SIZE)).model_copy(update={"input_size": None})
    with pytest.raises(InputError, match="no input size to prove"):
        swap_pools(model, plan)
    assert type(model[1]) is nn.MaxPool2d
    swap_pools(model, plan, example=torch.zeros(1, *SIZE))
    assert type(model[1]) is not nn.MaxPool2d
    assert swap_pools(model, Plan()).swapped == ()


def test_convert_saves_nothing_that_is_not_proven(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    input_size = (3, 16, 16)\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.pool = nn.MaxPool2d(2)\n"
        "        self.pools = [self.pool]\n"
        "    def forward(self, x):\n"
        "        return self.pools[0](x)\n"
    )
    assert main(["convert", "net.py:Net", "--output", "net.safetensors"]) == 1
    assert "something else holds the layer" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["net.py"]
