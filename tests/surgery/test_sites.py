"""find_pools: every pooling call, in call order, with its geometry and shapes; gates and norms are not sites."""

import nets
import pytest
import timm
import torch
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn
from torch.nn import functional as F

from poolswap.errors import InputError
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools


def on_meta(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs)


def summary(sites):
    return [(s.path, s.kind, s.op, s.scope, str(s.call)) for s in sites]


def test_modules_and_functional_calls_in_call_order():
    sites = find_pools(nets.Mixed(), (3, 32, 32))
    assert summary(sites) == [
        ("pool", "module", "max", "window", "3x3/2 p1"),
        ("pool_2", "functional", "max", "window", "2x2/2 ceil"),
        ("inner.pool_1", "functional", "avg", "window", "3x3/1 p1"),
        ("pool_3", "functional", "max", "window", "2x2/2"),
        ("pool_4", "functional", "avg", "global", "all"),
        ("pool_1", "functional", "avg", "window", "5x5/1 p2"),
    ]
    assert [site.only for site in sites] == [None] * 5 + ["train"]
    assert sites[1].input_shape == (1, 8, 16, 16)
    assert sites[1].output_shape == (1, 8, 8, 8)
    assert [site.number for site in sites] == [1, 2, 3, 4, 5, 6]


def test_a_map_without_a_batch_has_channels_too():
    class First(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x[0], 2)

    net = First()
    (site,) = find_pools(net, (3, 16, 8))
    assert (site.input_shape, site.channels) == ((3, 16, 8), 3)
    with pytest.raises(ValueError, match="no channels"):
        type(site).model_validate({**site.model_dump(), "input_shape": (16, 8)})
    swap_pools(net, make_plan([site], to="mixed:per_channel=true"))
    assert net(torch.randn(1, 3, 16, 8)).shape == (3, 8, 4)


def test_a_shared_module_is_one_module_with_several_sites():
    sites = find_pools(nets.Shared(), (3, 32, 32))
    assert [(s.path, s.aliases, s.output_shape[-1]) for s in sites] == [
        ("pool", ("again.1",), 16),
        ("pool", ("again.1",), 8),
        ("pool", ("again.1",), 4),
    ]


def test_finding_changes_nothing():
    model = nets.Mixed().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    find_pools(model, (3, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_squeeze_and_excite_gates_are_not_sites():
    sites = find_pools(on_meta(timm.create_model, "seresnet18"), (3, 224, 224))
    assert [site.path for site in sites] == ["maxpool", "global_pool.pool"]


def test_same_padding_pools_keep_their_size():
    model = nn.Sequential(MaxPool2dSame(3, 2), AvgPool2dSame(3, 2), nn.Conv2d(3, 3, 1))
    sites = find_pools(model, (3, 112, 112))
    assert [(site.padding, site.input_shape[-1], site.output_shape[-1]) for site in sites] == [
        ("same", 112, 56),
        ("same", 56, 28),
    ]


@pytest.mark.parametrize(
    ("pool", "size", "op", "scope"),
    [
        (nn.MaxPool1d(3, 2), (4, 16), "max", "window"),
        (nn.AvgPool1d(3, 2), (4, 16), "avg", "window"),
        (nn.MaxPool3d(2), (4, 8, 8, 8), "max", "window"),
        (nn.AvgPool3d(2), (4, 8, 8, 8), "avg", "window"),
        (nn.AdaptiveAvgPool2d(1), (4, 8, 8), "avg", "global"),
        (nn.AdaptiveMaxPool2d((2, None)), (4, 8, 8), "max", "global"),
        (nn.AvgPool2d(8), (4, 8, 8), "avg", "global"),
    ],
)
def test_every_class_of_torch_is_found(pool, size, op, scope):
    (site,) = find_pools(nn.Sequential(pool), size)
    assert (site.path, site.kind, site.op, site.scope, site.replaceable) == ("0", "module", op, scope, True)
    assert site.channels == 4


FUNCTIONS = {
    "F.max_pool2d": (lambda x: F.max_pool2d(x, 2), "max"),
    "torch.max_pool2d": (lambda x: torch.max_pool2d(x, 2), "max"),
    "F.avg_pool2d": (lambda x: F.avg_pool2d(x, 2), "avg"),
    "F.max_pool1d": (lambda x: F.max_pool1d(x.flatten(2), 2), "max"),
    "F.avg_pool1d": (lambda x: F.avg_pool1d(x.flatten(2), 2), "avg"),
    "F.max_pool3d": (lambda x: F.max_pool3d(x[:, None], 2), "max"),
    "F.avg_pool3d": (lambda x: F.avg_pool3d(x[:, None], 2), "avg"),
    "F.adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 1), "avg"),
    "F.adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (1, 1)), "max"),
    "Tensor.mean": (lambda x: x.mean((2, 3)), "avg"),
    "torch.mean": (lambda x: torch.mean(x, dim=[-1, -2], keepdim=True), "avg"),
    "Tensor.amax": (lambda x: x.amax((-2, -1)), "max"),
}


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_torch_is_found(name):
    function, op = FUNCTIONS[name]
    (site,) = find_pools(Calls(function), (4, 8, 8))
    assert (site.path, site.kind, site.op, site.function) == ("pool_1", "functional", op, name)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "indices"),
        (lambda: Calls(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]), "indices"),
        (lambda: nn.Sequential(nn.AvgPool2d(2, divisor_override=1)), "divisor_override"),
        (lambda: nn.Sequential(torch.jit.script(nn.MaxPool2d(2))), "TorchScript"),
    ],
    ids=["module indices", "functional indices", "divisor", "script"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated")
def test_what_cannot_be_replaced_says_why(make, reason):
    (site,) = find_pools(make(), (4, 8, 8))
    assert not site.replaceable
    assert reason in site.reason


def test_a_model_that_cannot_run_says_what_to_do():
    with pytest.raises(InputError, match="cannot run on an input of size 3,8,8") as error:
        find_pools(nn.Sequential(nn.Conv2d(4, 4, 3)), (3, 8, 8))
    assert "input_size=(C, H, W)" in error.value.hint


@pytest.mark.parametrize(
    "example", [torch.zeros(1, 4, 8, 8), (torch.zeros(1, 4, 8, 8),), {"function_input": torch.zeros(1, 4, 8, 8)}]
)
def test_an_example_replaces_the_input(example):
    class Keyword(nn.Module):
        def forward(self, function_input):
            return F.max_pool2d(function_input, 2)

    (site,) = find_pools(Keyword(), (1, 1, 1), example=example)
    assert site.input_shape == (1, 4, 8, 8)


def test_lazy_layers_must_have_run_once():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.MaxPool2d(2))
    with pytest.raises(InputError, match="lazy layers, which know no shapes yet"):
        find_pools(model, (3, 8, 8))
    model(torch.zeros(1, 3, 8, 8))
    assert [site.path for site in find_pools(model, (3, 8, 8))] == ["1"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_tensors_that_are_neither_parameters_nor_buffers_are_copied_with_the_model():
    conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    (site,) = find_pools(nn.Sequential(conv, nn.MaxPool2d(2)), (3, 8, 8))
    assert site.path == "1"


def test_a_forward_that_draws_its_way_has_the_same_sites_every_time():
    class Drawn(nn.Module):
        def forward(self, x):
            pools = [F.max_pool2d, F.avg_pool2d]
            return pools[torch.randint(2, ()).item()](x, 2)

    torch.manual_seed(0)
    assert len({str(find_pools(Drawn(), (3, 8, 8))) for _ in range(8)}) == 1
