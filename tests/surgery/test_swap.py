"""A swap changes what it says and nothing else, and restore brings the original back exactly."""

import copy

import nets
import pytest
import torch
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from poolswap.errors import InputError
from poolswap.inputs import outputs_of, seeded_inputs
from poolswap.measure import relative_distance
from poolswap.nn import AdaptiveSoftPool, GlobalSoftPool, SoftPool
from poolswap.surgery.drift import measure_drift
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 32, 32)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nets.Mixed().eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def plan_for(net, **options):
    return make_plan(find_pools(net, SIZE), **options)


def test_every_chosen_site_is_replaced(net):
    report = swap_pools(net, plan_for(net, include_global=True))
    assert [swapped.path for swapped in report.swapped] == ["pool", "pool_2", "inner.pool_1", "pool_3", "pool_4"]
    assert report.lifted == ("", "inner")
    assert isinstance(net.pool, SoftPool)
    assert isinstance(net.pool_4, GlobalSoftPool)
    assert str(net.pool.geometry) == "3x3/2 p1"
    assert [site.path for site in find_pools(net, SIZE)] == ["pool_1"]


@pytest.mark.parametrize("size", [(32, 32), (45, 37)])
def test_shapes_are_the_same_at_any_input_size(net, size):
    x, plan = noise(2, 3, *size), plan_for(net, include_global=True)
    shapes = {}

    def see(name):
        return lambda module, args, output: shapes.setdefault(name, []).append(tuple(output.shape))

    for name, module in net.named_modules():
        module.register_forward_hook(see(name))
    net(x)
    before = {name: list(seen) for name, seen in shapes.items()}
    shapes.clear()
    swap_pools(net, plan, prove=False)
    net(x)
    assert {name: seen for name, seen in shapes.items() if name in before} == before


def test_restore_is_exact(net):
    x, keys, pool = noise(2, *SIZE), list(net.state_dict()), net.pool
    expected, names = net(x), [name for name, _ in net.named_modules()]
    swap_pools(net, plan_for(net, include_global=True))
    assert not torch.equal(net(x), expected)
    restore(net)
    assert torch.equal(net(x), expected)
    assert list(net.state_dict()) == keys
    assert [name for name, _ in net.named_modules()] == names
    assert net.pool is pool
    assert type(net) is nets.Mixed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_device_dtype_mode_and_grad_flags_are_kept(net, dtype):
    net.to(dtype).train()
    net.inner.eval()
    net.conv.requires_grad_(False)
    plan = plan_for(net)
    swap_pools(net, plan)
    assert net.pool.beta.dtype == dtype
    assert net.pool.training
    assert not net.inner.pool_1.training
    assert not net.conv.weight.requires_grad
    assert net(noise(2, *SIZE).to(dtype)).dtype == dtype


def test_a_model_on_meta_stays_on_meta():
    with torch.device("meta"):
        net = nets.Mixed()
    swap_pools(net, plan_for(net))
    assert net.pool.beta.is_meta


def test_a_shared_module_is_replaced_under_all_its_names():
    net = nets.Shared()
    swap_pools(net, plan_for(net))
    assert net.pool is net.again[1]
    assert isinstance(net.pool, SoftPool)
    restore(net)
    assert net.pool is net.again[1]


def test_deep_copies_of_a_swapped_model_restore_by_themselves(net):
    x = noise(2, *SIZE)
    expected = net(x)
    swap_pools(net, plan_for(net))
    twin = copy.deepcopy(net)
    restore(twin)
    assert torch.equal(twin(x), expected)
    assert isinstance(net.pool, SoftPool)
    assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_unselected_calls_of_a_lifted_owner_stay_stock(net):
    swap_pools(net, plan_for(net, layers="pool_2"))
    net.train()
    net(noise(2, *SIZE))
    assert [type(net.get_submodule(name)).__name__ for name in ("pool_1", "pool_2", "pool_3")] == [
        "StockPool",
        "SoftPool",
        "StockPool",
    ]


def test_gradients_flow_in_both_layouts(net):
    swap_pools(net, plan_for(net, include_global=True))
    for layout in (torch.contiguous_format, torch.channels_last):
        net.zero_grad()
        net(noise(2, *SIZE).contiguous(memory_format=layout)).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_same_padding_keeps_its_size():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), MaxPool2dSame(3, 2))
    swap_pools(net, plan_for(net))
    assert [net(noise(1, 3, n, n)).shape[-1] for n in (112, 113, 7)] == [56, 57, 4]


def test_compile_and_export_after_the_swap(net):
    swap_pools(net, plan_for(net, include_global=True))
    x = noise(2, *SIZE)
    expected = net(x)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), expected)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)


def test_paper_geometry_turns_the_stem_into_2_2_and_keeps_every_size(net):
    plan = plan_for(net, geometry="paper")
    assert str(plan.swaps[0].geometry) == "2x2/2 ceil"
    swap_pools(net, plan)
    for n in (32, 33, 45):
        assert net.pool(noise(1, 8, n, n)).shape[-1] == nn.MaxPool2d(3, 2, 1)(noise(1, 8, n, n)).shape[-1]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_plan_survives_its_file_and_reproduces_the_swap(net, tmp_path, form):
    plan = plan_for(net, include_global=True, swaps=[("pool_2", "soft:beta=3")])
    path = tmp_path / f"plan.{form}"
    path.write_text(plan.dumps(form))
    again = Plan.read(path)
    assert again == plan
    twin = copy.deepcopy(net)
    swap_pools(net, plan)
    swap_pools(twin, again)
    x = noise(2, *SIZE)
    assert torch.equal(net(x), twin(x))
    assert float(net.pool_2.beta) == 3


@pytest.mark.parametrize("text", ["[]", "{", "format: 9", "swaps: [{to: soft}]", "format: 1\nsurprise: 2"])
def test_a_bad_plan_file_is_an_input_error(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a plan"):
        Plan.read(path)


def test_a_plan_for_another_model_changes_nothing(net):
    plan = plan_for(net)
    other = nn.Sequential(nn.Conv2d(3, 3, 1), nn.MaxPool2d(2))
    with pytest.raises(InputError, match="is not in the model"):
        swap_pools(other, plan)
    net.pool = nn.MaxPool2d(2)
    with pytest.raises(InputError, match="the plan has max pooling 3x3/2 p1 at pool; there is MaxPool2d"):
        swap_pools(net, plan)
    assert type(net) is nets.Mixed


def test_adaptive_heads_keep_their_grid():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((3, None)))
    swap_pools(net, plan_for(net, include_global=True))
    assert isinstance(net[1], AdaptiveSoftPool)
    assert net(noise(1, *SIZE)).shape == (1, 4, 3, 30)


def test_drift_measures_and_leaves_no_trace(net):
    net.train()
    x, keys = noise(2, *SIZE), list(vars(net))
    plan = plan_for(net)
    drift = measure_drift(net, plan, SIZE)
    assert [site.path for site in drift.sites] == list(plan.paths)
    assert all(0 < site.local < 2 for site in drift.sites)
    assert drift.sites[0].local == pytest.approx(drift.sites[0].total)
    assert drift.output > 0
    assert net.training
    assert list(vars(net)) == keys
    assert drift == measure_drift(net, plan, SIZE)
    swap_pools(net.eval(), plan)
    with pytest.raises(InputError, match="swapped already"):
        measure_drift(net, plan, SIZE)
    assert net(x).isfinite().all()


def test_the_drift_is_of_the_parameters_that_the_swap_draws(net):
    plan, inputs = plan_for(net, to="dpp", init="published"), seeded_inputs(net, SIZE, seed=0, batch=2)
    before, drift = outputs_of(net, inputs), measure_drift(net, plan, SIZE)
    swap_pools(net, plan)
    assert drift.output == relative_distance(outputs_of(net, inputs), before)


def test_a_site_whose_output_has_another_shape_has_no_drift_and_a_file_says_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    drift = measure_drift(model, plan_for(model, to="spp"), SIZE)
    assert (drift.sites[0].local, drift.sites[0].total) == (None, None)
    assert type(drift).model_validate_json(drift.model_dump_json()) == drift


def test_drift_of_an_equal_operator_is_zero():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2))
    drift = measure_drift(net, plan_for(net, to="soft:beta=0"), SIZE)
    assert drift.output == pytest.approx(0, abs=1e-6)


def test_a_model_swapped_in_inference_mode_trains(net):
    with torch.inference_mode():
        swap_pools(net, make_plan(find_pools(net, SIZE), to="gated"))
    net.train()(torch.randn(2, *SIZE)).sum().backward()
    assert all(p.grad is not None for name, p in net.named_parameters() if "pool" in name)
