"""What is not replaced is said, with the reason: pooling that is no plain call, and pooling that is no downsampling."""

import warnings
from threading import Thread

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from poolswap.errors import InputError, NothingToReplaceError
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

SIZE = (3, 24, 24)


class Does(nn.Module):
    """A forward of one line, behind a convolution."""

    def __init__(self, line):
        super().__init__()
        self.conv, self.pool, self.line = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1), line

    def forward(self, x):
        return self.line(self, self.conv(x))


class StraightThrough(torch.autograd.Function):
    """A pooling whose backward is no pooling's."""

    @staticmethod
    def forward(ctx, x, pool):
        return pool(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.repeat_interleave(2, -1).repeat_interleave(2, -2), None


def scripted(owner, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.MaxPool2d(2))(x)


REFUSED = {
    "autograd function": (lambda m, x: StraightThrough.apply(x, lambda y: F.max_pool2d(y, 2)), "StraightThrough"),
    "pool in a function": (lambda m, x: StraightThrough.apply(x, nn.MaxPool2d(2)), "StraightThrough"),
    "TorchScript": (scripted, "TorchScript"),
    "aten packet": (lambda m, x: torch.ops.aten.max_pool2d(x, [2, 2]), "part of aten.max_pool2d"),
    "aten overload": (lambda m, x: torch.ops.aten.avg_pool2d.default(x, [2, 2]), "part of aten.avg_pool2d.default"),
    "C function": (lambda m, x: torch._C._nn.max_pool2d_with_indices(x, 2)[0], "part of torch._C._nn.max_pool2d_with"),
    "lp": (lambda m, x: F.lp_pool2d(x, 2, 2), "part of torch.nn.functional.lp_pool2d"),
    "integers": (lambda m, x: F.max_pool2d((x * 9).long(), 2), "pools a map of torch.int64"),
    "view": (lambda m, x: x.view(-1, 4, 12, 2, 12, 2).amax((3, 5)), "written out as view and amax"),
    "reshape": (lambda m, x: x.reshape(-1, 4, 8, 3, 8, 3).mean(dim=(-1, -3)), "written out as reshape and mean"),
    "permuted": (
        lambda m, x: x.view(-1, 4, 12, 2, 12, 2).permute(0, 1, 2, 4, 3, 5).flatten(4).amax(-1),
        "written out as view and amax",
    ),
    "channels last": (
        lambda m, x: x.permute(0, 2, 3, 1).reshape(-1, 12, 2, 12, 2, 4).amax((2, 4)),
        "written out as reshape and amax",
    ),
    "unfold": (lambda m, x: x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2)), "written out as unfold and amax"),
    "columns": (
        lambda m, x: F.unfold(x, 2, stride=2).view(-1, 4, 4, 144).max(dim=2).values,
        "written out as unfold and max",
    ),
    "tokens": (lambda m, x: x.flatten(2).mT.view(-1, 4, 144, 4).amax(1).mT.unflatten(2, (12, 12)), "view and amax"),
    "rows": (lambda m, x: x.view(-1, 4, 12, 2, 24).max(3).values, "written out as view and max"),
    "area": (lambda m, x: F.interpolate(x, scale_factor=0.5, mode="area"), "area interpolation"),
}


def in_a_thread(owner, x):
    outputs = []
    thread = Thread(target=lambda: outputs.append(owner.pool(input=x.detach())))
    thread.start()
    thread.join()
    return outputs[0]


REFUSED["thread"] = (in_a_thread, "runs in a thread")


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_listed_and_refused(name):
    line, reason = REFUSED[name]
    (site,) = find_pools(Does(line), SIZE)
    assert reason in site.reason
    assert not site.replaceable
    with pytest.raises(NothingToReplaceError, match=reason):
        make_plan([site])


@pytest.mark.parametrize(
    "line",
    [
        lambda m, x: x.view(-1, 2, 2, 24, 24).mean(2),  # groups of channels
        lambda m, x: x.view(-1, 2, 2, 24, 24).amax(2),  # maxout
        lambda m, x: x.flatten(2).mT.view(-1, 576, 2, 2).amax(2),  # the same of tokens
        lambda m, x: x.flatten(2).mT.view(-1, 24, 24, 4).mean(1),  # a mean along one axis may be of anything
        lambda m, x: x.view(-1, 4, 12, 2, 12, 2).permute(0, 1, 3, 5, 2, 4).reshape(-1, 16, 12, 12),  # space to depth
        lambda m, x: x.view(-1, 4, 12, 2, 12, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 4).softmax(-1),  # attention
        lambda m, x: x.flatten(2).mean(-1),
    ],
)
def test_other_views_are_no_pooling(line):
    assert find_pools(Does(line), SIZE) == []


def test_a_checkpoint_is_no_function_of_the_users():
    """A reentrant checkpoint is an autograd function too, but computes its gradient from the modules themselves."""
    line = lambda m, x: torch.utils.checkpoint.checkpoint(m.pool, x, use_reentrant=True)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (site,) = find_pools(Does(line), SIZE)
    assert site.replaceable


SUPPRESSION = {
    "equal": lambda m, x: x * (m.pool(x) == x),
    "at least": lambda m, x: x * x.ge(m.pool(x)),
    "squeezed": lambda m, x: x[:, 0] * (F.max_pool2d(x[:, :1], 5, 1, 2).squeeze(1) == x[:, 0]),
}


@pytest.mark.parametrize("name", SUPPRESSION)
def test_non_maximum_suppression_stays_unless_it_is_named(name):
    model = nn.Sequential(nn.MaxPool2d(2), Does(SUPPRESSION[name]))
    stem, peaks = find_pools(model, SIZE)
    assert peaks.replaceable
    plan = make_plan([stem, peaks])
    assert plan.paths == ("0",)
    ((path, reason),) = [(left.path, left.reason) for left in plan.left]
    assert (path, "non-maximum suppression" in reason) == (peaks.path, True)
    assert make_plan([stem, peaks], "1").paths == ("0",)
    assert make_plan([stem, peaks], peaks.path).paths == make_plan([stem, peaks], "#2").paths == (peaks.path,)


def test_a_smoothing_pool_is_no_suppression():
    (site,) = find_pools(Does(lambda m, x: m.pool(x) + x), SIZE)
    assert site.aside is None


def test_a_plan_says_what_all_left_and_a_narrow_selector_does_not():
    model = nn.Sequential(nn.MaxPool2d(2), Does(REFUSED["area"][0]))
    sites = find_pools(model, SIZE)
    assert [left.path for left in make_plan(sites).left] == ["1"]
    assert make_plan(sites, "first").left == ()
    assert make_plan(sites, op="max").left == ()
    assert make_plan(sites, exclude=["1"]).left == ()


def test_an_empty_stride_is_the_kernels():
    """torch takes it; it used to fail the whole model."""
    (site,) = find_pools(Does(lambda m, x: F.max_pool2d(x, [2, 2], [])), SIZE)
    assert str(site.call) == "2x2/2"


def test_a_keyword_call_has_its_shape_and_runs_after_the_swap():
    model = Does(lambda m, x: m.pool(input=x))
    (site,) = find_pools(model, SIZE)
    assert site.input_shape == (1, 4, 24, 24)
    x, stock = torch.randn(1, *SIZE), model(torch.zeros(1, *SIZE)).shape
    swap_pools(model, make_plan([site]))
    assert model(x).shape == stock


def test_an_owner_that_calls_a_childs_forward_directly_is_not_lifted():
    model = Does(lambda m, x: m.pool.forward(x) + F.avg_pool2d(x, 3, 1, 1))
    pool, call = find_pools(model, SIZE)
    assert (pool.kind, pool.replaceable) == ("module", True)
    assert "calls a child's forward directly" in call.reason


def test_a_pool_called_as_a_module_and_by_its_forward_is_one_layer():
    model = Does(lambda m, x: m.pool(x) + m.pool.forward(x))
    sites = find_pools(model, SIZE)
    assert [site.path for site in sites] == ["pool", "pool"]
    swap_pools(model, make_plan(sites))
    x = torch.randn(1, *SIZE)
    assert torch.equal(model(x), 2 * model.pool(model.conv(x)))


def test_a_call_in_a_childs_hook_belongs_to_the_caller():
    model = Does(lambda m, x: x)
    model.conv.register_forward_hook(lambda module, args, y: F.max_pool2d(y, 2))
    (site,) = find_pools(model, SIZE)
    assert (site.path, site.owner, site.replaceable) == ("pool_1", "", True)


def test_a_hook_of_the_model_itself_cannot_be_lifted():
    model = Does(lambda m, x: x)
    model.register_forward_hook(lambda module, args, y: F.max_pool2d(y, 2))
    (site,) = find_pools(model, SIZE)
    assert "hook of the model itself" in site.reason
    with pytest.raises((InputError, NothingToReplaceError)):
        make_plan([site])


def test_a_call_in_a_graph_of_fx_is_left_as_it_is_and_a_module_in_one_is_not():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return F.avg_pool2d(self.pool(x), 2)

    model = torch.fx.symbolic_trace(Both()).eval()
    plan = make_plan(find_pools(model, SIZE))
    assert (plan.paths, [left.path for left in plan.left]) == (("pool",), ["pool_1"])
    assert "swap the model, then trace it" in plan.left[0].reason
    swap_pools(model, plan)


def test_every_reason_of_an_owner_is_said():
    def line(model, x):
        x = scripted(model, model.pool(x))
        return x.view(-1, 4, 6, 2, 6, 2).amax((3, 5))

    (left,) = make_plan(find_pools(Does(line), SIZE)).left
    assert "runs below Python, inside TorchScript" in left.reason
    assert "; it is written out as view and amax" in left.reason
