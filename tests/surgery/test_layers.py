"""Sites that are no pooling calls: strided convolutions, which are asked for, and regions, which are named."""

import copy
import json

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.ops import MultiScaleRoIAlign, RoIAlign, RoIPool

from poolswap.checkpoint import save_checkpoint, verify_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError, NothingToReplaceError
from poolswap.load import load_model
from poolswap.nn.conv import ConvThenPool
from poolswap.nn.roi import SoftMultiScaleRoIAlign
from poolswap.surgery.conv_cost import conv_costs
from poolswap.surgery.drift import measure_drift
from poolswap.surgery.plan import Plan, make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 33, 32)
OPERATORS = ("blur", "aps", "soft", "soft:beta=channel", "avg", "lip")


class Strided(nn.Module):
    """Convolutions of every kind that a stride stands on, and one max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.around = nn.Conv2d(4, 4, 5, (2, 1), padding=2, groups=2, bias=False, padding_mode="circular")
        self.flat = nn.Conv1d(4, 6, 2, stride=2)
        self.same = Conv2dSame(4, 4, 3, stride=2)
        self.normed = weight_norm(nn.Conv2d(4, 4, 3, stride=2))
        self.patches = nn.Conv2d(4, 2, 5, stride=5)
        self.dense = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.dense(self.pool(self.plain(x)))
        x = self.around(x)
        heads = (self.flat(x.flatten(2)), self.same(x), self.normed(x), self.patches(x))
        return torch.cat([head.flatten(1) for head in heads], 1)


def strided():
    torch.manual_seed(0)
    return Strided().eval()


def test_convolutions_are_sites_only_when_they_are_asked_for_and_change_no_number():
    model = strided()
    usual, more = find_pools(model, SIZE), find_pools(model, SIZE, include=["convs"])
    assert [site.path for site in usual] == ["pool"]
    assert more[:1] == usual
    assert [site.path for site in more[1:]] == ["plain", "around", "flat", "same", "normed", "patches"]
    assert {site.kind for site in more[1:]} == {site.op for site in more[1:]} == {"conv"}
    assert [str(site.call) for site in more[1:4]] == ["1x1/2", "1x1/2x1", "1/2"]
    assert [site.channels for site in more[1:4]] == [4, 4, 6]
    why = {site.path: site.left_out for site in more if site.left_out}
    assert "is a Conv2dSame" in why["same"]
    assert "computed" in why["normed"]
    assert "25 times the work" in why["patches"]


@pytest.mark.parametrize("to", OPERATORS)
def test_a_swap_keeps_shapes_parameters_and_names_and_comes_back(to, tmp_path):
    model, x = strided(), torch.randn(2, *SIZE)
    before, stock = model(x), copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = make_plan(find_pools(model, SIZE, include=["convs"]), "all", to, op="conv", init="published")
    report = swap_pools(model, plan, optimizers=[optimizer])
    assert [one.path for one in report.swapped] == ["plain", "around", "flat"]
    assert model(x).shape == before.shape
    assert isinstance(model.plain, nn.Conv2d)
    assert set(stock) < set(model.state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*pool"):
        strided().load_state_dict(model.state_dict())
    held = {p for group in optimizer.param_groups for p in group["params"]}
    assert held == set(model.parameters())
    brought = sum(one.parameters for one in report.swapped)
    assert brought == sum(p.numel() for name, p in model.named_parameters() if name not in stock)

    copied = copy.deepcopy(model).train()
    copied(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in copied.parameters())
    assert model.plain.weight.grad is None

    program = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(program(x), model(x))
    again = Plan.model_validate_json(plan.dumps("json"))
    other = strided()
    swap_pools(other, again)
    assert torch.equal(other(x), model(x)) or "lip" in to
    restore(model)
    assert torch.equal(model(x), before)
    assert model.state_dict().keys() == stock.keys()


def test_a_blur_after_a_convolution_is_zhangs():
    """The convolution with stride 1, then a binomial filter with its stride."""
    model, x = strided(), torch.randn(2, *SIZE)
    dense = nn.functional.conv2d(x, model.plain.weight, model.plain.bias, padding=1)
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    weight = (row[:, None] * row).expand(4, 1, 3, 3)
    expected = nn.functional.conv2d(dense, weight, stride=2, padding=1, groups=4)
    swap_pools(model, make_plan(find_pools(model, SIZE, include=["convs"]), "plain", "blur"))
    torch.testing.assert_close(model.plain(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("size", [(3, 32, 32), (3, 33, 35), (3, 41, 37)])
def test_max_of_windows_as_large_as_the_stride_covers_every_element_once(size):
    """The last window is cut where the map ends, and the stock output's size is kept."""
    model, x = strided(), torch.randn(1, *size)
    expected = model.plain(x).shape
    dense = nn.functional.conv2d(x, model.plain.weight, model.plain.bias, padding=1)
    swap_pools(model, make_plan(find_pools(model, size, include=["convs"]), "plain", "max"))
    assert model.plain(x).shape == expected
    torch.testing.assert_close(model.plain(x), nn.functional.max_pool2d(dense, 2, ceil_mode=True))


@pytest.mark.parametrize("computed", [nn.utils.spectral_norm, lambda conv: prune.identity(conv, "weight")])
def test_a_convolution_whose_weight_a_hook_computes_is_listed_and_stays(computed):
    model = nn.Sequential(computed(nn.Conv2d(3, 4, 3, 2)))
    (site,) = find_pools(model, SIZE, include=["convs"])
    assert not site.replaceable
    with pytest.raises(NothingToReplaceError, match="0 has a weight that a hook computes"):
        make_plan([site], "#1", "blur")


def test_its_cost_is_known_before_anything_is_done():
    model = strided()
    sites = find_pools(model, SIZE, include=["convs"])
    before = copy.deepcopy(model.state_dict())
    costs = conv_costs(model, make_plan(sites, "plain,around,pool", "blur"))
    assert [cost.path for cost in costs] == ["plain", "around"]
    assert costs[0].work == 33 * 32 / (17 * 16)
    assert costs[0].map_bytes == 4 * 33 * 32 * 4
    assert all(cost.time > 0 for cost in costs)
    assert type(model.plain) is nn.Conv2d
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert conv_costs(model, make_plan(sites, "pool", "soft")) == ()


def test_a_plan_of_another_convolution_is_refused():
    plan = make_plan(find_pools(strided(), SIZE, include=["convs"]), "plain", "blur")
    model = strided()
    model.plain.stride = (1, 2)
    with pytest.raises(InputError, match="the plan has conv"):
        swap_pools(model, plan)


def test_a_network_without_pools_says_where_to_look():
    model, _ = load_model("test_vit", input_size=(3, 160, 160))
    with pytest.raises(NothingToReplaceError) as caught:
        make_plan([site for site in find_pools(model, (3, 160, 160)) if site.scope == "window"])
    assert "include=['convs']" in caught.value.hint


def test_the_commands_say_the_cost_save_and_verify(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["test_resnet", "--input-size", "3,32,32", "--include", "convs"]
    assert main(["inspect", *small]) == 0
    assert "4 strided convolutions" in capsys.readouterr().err
    assert main(["convert", *small, "--op", "conv", "--to", "aps", "--dry-run"]) == 0
    assert "conv1.0: 4 times the work" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["convert", *small, "--to", "blur", "-o", "a.safetensors", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["conv_costs"]) == 4
    assert made["replaced"] == 8
    assert verify_checkpoint("a.safetensors").ok


def detector():
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    )
    return model.eval()


def test_regions_are_listed_and_replaced_where_they_are_named(tmp_path):
    model, size = detector(), (3, 64, 64)
    sites = find_pools(model, size)
    (site,) = [site for site in sites if site.kind == "roi"]
    assert site.path == "roi_heads.box_roi_pool"
    assert site.channels == 256
    assert site.output_shape[1:] == (256, 7, 7)
    assert site.path not in make_plan(sites, "all").paths
    assert site.path not in {left.path for left in make_plan(sites, "all").left}
    with pytest.raises(InputError, match="which pools regions"):
        make_plan(sites, site.path, "max")

    x = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))]
    before = model(x)[0]
    plan = make_plan(sites, f"#{site.number}", "soft:beta=learn", model="torchvision:x", input_size=size)
    moved = measure_drift(model, plan, size)
    assert moved.sites[0].local < 1e-5  # identity: beta starts at 0, which is RoIAlign
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    swap_pools(model, plan, optimizers=[optimizer])
    assert isinstance(model.roi_heads.box_roi_pool, SoftMultiScaleRoIAlign)
    torch.testing.assert_close(model(x)[0], before)

    model.train()
    target = [{"boxes": torch.tensor([[4.0, 4, 40, 50]]), "labels": torch.tensor([1])}]
    torch.manual_seed(0)
    sum(model(x, target).values()).backward()
    optimizer.step()
    assert float(model.roi_heads.box_roi_pool.beta.detach()) != 0
    restore(model)
    assert isinstance(model.roi_heads.box_roi_pool, MultiScaleRoIAlign)


class Regions(nn.Module):
    """A convolution, and the pooling of one region."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.regions = pool

    def forward(self, x):
        return self.regions(self.conv(x), [torch.tensor([[1.0, 2, 20, 25]]).to(x)] * len(x))


@pytest.mark.parametrize(
    ("pool", "to"),
    [
        (RoIAlign(3, 1.0, 2), "soft:beta=0"),
        (RoIAlign(3, 1.0, -1, True), "soft:beta=0"),
        (RoIPool(3, 1.0), "soft:beta=1e5"),
    ],
)
def test_a_network_that_pools_regions_alone_takes_soft_ones_where_they_are_named(pool, to):
    torch.manual_seed(0)
    model, x = Regions(pool), torch.randn(2, *SIZE)
    before, sites = model(x), find_pools(model, SIZE)
    for selector, other in (("all", "soft"), ("regions", "gem")):
        with pytest.raises(NothingToReplaceError, match="but regions, which pools regions") as caught:
            make_plan(sites, selector, other)
        assert caught.value.hint == "name it: layers='regions', to='soft'"
    swap_pools(model, make_plan(sites, "regions", to))
    torch.testing.assert_close(model(x), before)


@pytest.mark.slow
def test_a_detector_with_soft_regions_is_saved_and_verified(tmp_path):
    arguments = {"min_size": 64, "max_size": 64}
    model, spec = load_model(
        "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", num_classes=3, input_size=(3, 64, 64), model_args=arguments
    )
    plan = make_plan(
        find_pools(model, spec.input_size), "*box_roi_pool", model=spec.reference, input_size=spec.input_size
    )
    swap_pools(model, plan)
    save_checkpoint(model, tmp_path / "soft.safetensors", spec=spec, plan=plan)
    checked = verify_checkpoint(tmp_path / "soft.safetensors")
    assert checked.ok, [check for check in checked.checks if not check.ok]


def test_a_convolution_that_was_replaced_is_no_site_again():
    model = strided()
    swap_pools(model, make_plan(find_pools(model, SIZE, include=["convs"]), "plain", "soft"))
    assert isinstance(model.plain, ConvThenPool)
    assert "plain" not in {site.path for site in find_pools(model, SIZE, include=["convs"])}
