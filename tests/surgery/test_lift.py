"""Lifting changes no output, in either mode, and the owner stays what it was to Python and to torch's tools."""

import copy
import inspect
import io
from concurrent.futures import ThreadPoolExecutor

import nets
import pytest
import torch
from kernels import window_kernels
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from poolswap.surgery.lift import LiftError, is_lifted, lift, unlift, unwatch
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nets.Mixed().eval()


@pytest.fixture
def x():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def lifted(net):
    lift(net, find_pools(net, (3, 32, 32)))
    return net


def run(net, x, *, train):
    net.train(train)
    torch.manual_seed(2)
    return net(x)


@pytest.mark.parametrize("train", [False, True])
def test_lifting_is_bit_identical(net, x, train):
    stock = copy.deepcopy(net)
    assert torch.equal(run(lifted(net), x, train=train), run(stock, x, train=train))


def test_calls_become_named_children(net):
    owners = lift(net, find_pools(net, (3, 32, 32)))
    assert owners == ["", "inner"]
    names = [name for name, _ in net.named_modules()]
    assert {"pool_1", "pool_2", "pool_3", "pool_4", "inner.pool_1"} <= set(names)
    assert isinstance(net, nets.Mixed)
    assert isinstance(net.inner, nets.Inner)
    assert type(net).__name__ == "Mixed"
    assert net.state_dict().keys() == nets.Mixed().state_dict().keys()


def test_each_call_runs_through_its_own_child(net, x):
    lifted(net)
    ran = []
    for name in ("pool_1", "pool_2", "pool_3", "pool_4", "inner.pool_1"):
        net.get_submodule(name).register_forward_hook(lambda m, a, y, name=name: ran.append(name))
    run(net, x, train=False)
    assert ran == ["pool_2", "inner.pool_1", "pool_3", "pool_4"]
    ran.clear()
    run(net, x, train=True)
    assert ran == ["pool_1", "pool_2", "inner.pool_1", "pool_3", "pool_4"]


def test_a_deep_copy_is_independent(net, x):
    lifted(net)
    expected = net(x)
    twin = copy.deepcopy(net)
    twin.pool_3 = nn.AvgPool2d(2)
    twin.inner.pool_1 = nn.Identity()
    assert torch.equal(net(x), expected)
    assert not torch.equal(twin(x), expected)


def test_pickling_rebuilds_the_generated_class(net, x):
    file = io.BytesIO()
    torch.save(lifted(net), file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(x), net(x))
    assert is_lifted(again)


def test_compile_without_graph_breaks(net, x):
    lifted(net)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), net(x))


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")  # the mode's own counters
@pytest.mark.parametrize("strict", [False, True])
def test_export(net, x, strict):
    lifted(net)
    program = torch.export.export(net, (x,), strict=strict)
    torch.testing.assert_close(program.module()(x), net(x))


def test_threads_do_not_mix(net, x):
    lifted(net)
    expected = net(x)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(y, expected) for y in pool.map(net, [x] * 16))


def test_unlift_gives_the_class_back(net, x):
    keys = dict(vars(net))
    lifted(net)
    for owner in (net.inner, net):
        unlift(owner)
    unwatch(net)
    assert type(net) is nets.Mixed
    assert vars(net).keys() == keys.keys()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_calls_that_depend_on_the_input_are_noticed():
    class Fickle(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 2) if x.shape[-1] > 8 else F.avg_pool2d(x, 2)

    model = Fickle()
    lift(model, find_pools(model, (3, 16, 16)))
    model(torch.zeros(1, 3, 16, 16))
    with pytest.raises(LiftError, match="depend on its input"):
        model(torch.zeros(1, 3, 8, 8))


def test_a_window_that_follows_the_input_is_lifted_at_every_size():
    class Head(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, x.shape[-2:]).flatten(1)

    model = Head()
    lift(model, find_pools(model, (3, 16, 16)))
    x = torch.randn(2, 3, 9, 7)
    assert torch.equal(model(x), F.avg_pool2d(x, (9, 7)).flatten(1))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_module_is_recomputed_through_its_children(net, x, reentrant):
    stock = copy.deepcopy(net)
    lifted(net)
    gradients = []
    for model in (stock, net):
        y = x.clone().requires_grad_()
        checkpoint(model, y, use_reentrant=reentrant).sum().backward()
        gradients.append(y.grad)
    assert torch.equal(*gradients)
    ran = []
    net.pool_2.register_forward_hook(lambda *args: ran.append(1))
    checkpoint(net, x.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
    assert len(ran) == 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_call_inside_the_owner_is_refused(x, reentrant):
    class Closure(nn.Module):
        def forward(self, x):
            return checkpoint(lambda x: F.max_pool2d(x, 2), x, use_reentrant=reentrant)

    model = Closure()
    lift(model, find_pools(model, (3, 32, 32)))
    with pytest.raises(LiftError, match="checkpoint a whole module"):
        model(x.requires_grad_())


class Parts(nn.Module):
    """An owner with another way in, as feature extractors take it."""

    def __init__(self):
        super().__init__()
        self.conv, self.inner, self.fc = nn.Conv2d(3, 8, 3, padding=1), nets.Inner(), nn.Linear(8, 5)

    def features(self, x):
        x = self.inner(F.max_pool2d(self.conv(x), 3, 2, 1))
        return self.squeeze(F.avg_pool2d(x, 2))

    def squeeze(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


class Wrapper(nn.Module):
    """Made after the swap; never calls the model's forward."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.features(x)


def soft(model, layers="all", **how):
    swap_pools(model, make_plan(find_pools(model, (3, 32, 32)), layers), **how)
    return model


@pytest.mark.parametrize("enter", [lambda m: m.features, Wrapper], ids=["method", "wrapper"])
@pytest.mark.parametrize("train", [False, True])
def test_a_replacement_holds_for_any_way_into_its_owner(x, enter, train):
    torch.manual_seed(0)
    model = soft(Parts()).train(train)
    seen = []
    model.fc.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x)
    y = enter(model)(x)
    assert torch.equal(y.mean((2, 3)), seen[0])
    assert window_kernels(enter(model), x) == []


def test_a_wrapper_keeps_what_was_not_chosen(x):
    model = soft(Parts().eval(), "pool_1,inner.pool_1")
    assert window_kernels(Wrapper(model), x) == ["avg_pool2d"]
    assert window_kernels(Wrapper(copy.deepcopy(model)), x) == ["avg_pool2d"]


def test_before_any_forward_it_refuses_to_guess(x):
    model = soft(Parts().eval(), prove=False)
    with pytest.raises(LiftError, match=r"Parts\.features pools before any forward"):
        model.features(x)
    model(x)
    model.features(x)


def test_a_place_of_several_calls_is_refused(x):
    class Steps(nn.Module):
        def down(self, x):
            return F.max_pool2d(x, 2)

        def forward(self, x):
            return self.down(self.down(x))

    model = soft(Steps().eval())
    assert window_kernels(model, x) == []
    with pytest.raises(LiftError, match=r"Steps\.down pools where forward makes several calls \(pool_1, pool_2\)"):
        model.down(x)


def test_methods_of_a_lifted_owner_stay_methods():
    class Owner(nets.Inner):
        size = property(lambda self: 3)

        @staticmethod
        def static():
            return 1

        def stages(self):
            yield from (1, 2)

    model = soft(Owner())
    assert (model.size, model.static(), list(model.stages())) == (3, 1, [1, 2])


def test_the_signature_of_forward_is_kept(x):
    class Named(nn.Module):
        def forward(self, image, scale: float = 1.0, *, flip=False):
            return F.max_pool2d(image, 2) * scale

    model = Named()
    before = inspect.signature(model.forward)
    assert inspect.signature(soft(model).forward) == before


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("by", ["name", "position"])
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
def test_export_with_dynamic_shapes_of_a_lifted_root(x, by, strict):
    model = soft(Parts().eval())
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    shapes = {"x": batch} if by == "name" else (batch,)
    program = torch.export.export(model, (x,), dynamic_shapes=shapes, strict=strict)
    torch.testing.assert_close(program.module()(x[:3]), model(x[:3]))


def test_what_was_found_and_what_ran_are_told_apart():
    class Fickle(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 2) if x.shape[-1] > 8 else F.avg_pool2d(x, 2)

    model = soft(Fickle())
    with pytest.raises(LiftError, match=r"avg_pool2d 2x2/2 in train mode where max_pool2d 2x2/2 was found"):
        model(torch.zeros(1, 3, 8, 8))


class Catches(nn.Module):
    """Goes on without the part that raised."""

    def __init__(self):
        super().__init__()
        self.part, self.scale = Fails(), nn.Parameter(torch.ones(1))

    def forward(self, x):
        try:
            x = self.part(x)
        except ArithmeticError:
            x = x * self.scale
        return F.max_pool2d(x, 2)


class Fails(nn.Module):
    fails = False

    def forward(self, x):
        if self.fails:
            raise ArithmeticError
        return x


@pytest.mark.parametrize("where", ["forward", "hook"])
def test_an_exception_below_that_the_owner_catches_brings_no_stock_pooling_back(x, where):
    model = Catches().eval()
    swap_pools(model, make_plan(find_pools(model, (3, 32, 32))))
    swapped = model(x)
    if where == "forward":
        model.part.fails = True
    else:
        handle = model.part.register_forward_pre_hook(lambda module, args: 1 / 0)
        model.part._forward_pre_hooks.move_to_end(handle.id, last=False)
    assert torch.equal(model(x), swapped)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_a_class_that_was_made_of_the_lifted_one_comes_back_and_is_lifted_again(x):
    model = Catches().eval()
    stock = model(x)
    plan = make_plan(find_pools(model, (3, 32, 32)))
    swap_pools(model, plan)
    swapped = model(x)
    nn.utils.parametrize.register_parametrization(model, "scale", Doubled())
    assert torch.equal(copy.deepcopy(model)(x), swapped)
    restore(model)
    assert torch.equal(model(x), stock)
    swap_pools(model, plan)
    assert torch.equal(model(x), swapped)
    restore(model)
    assert torch.equal(copy.deepcopy(model)(x), stock)
