"""What the user's code did with a stock layer it can do with the replacement, and finds again after restore."""

import copy
import inspect
import io

import pytest
import torch
from torch import nn

from poolswap.nn import SoftPool
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 16, 16)


class Marked(nn.MaxPool2d):
    """A user's own stock layer, with a method and a mark, as ultralytics puts them on every layer."""

    def where(self):
        return f"layer {self.i} from {self.f}"


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Marked(2), nn.AvgPool2d(3, 1), nn.Flatten(), nn.Linear(100, 2))
    net[1].i, net[1].f = 1, -1
    return net


@pytest.fixture
def x():
    return torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0), requires_grad=True)


def swapped(net, **options):
    swap_pools(net, make_plan(find_pools(net, SIZE)), **options)
    return net


HOOKS = {
    "forward": lambda m, seen: m.register_forward_hook(lambda *call: seen.append("forward")),
    "with keywords": lambda m, seen: m.register_forward_hook(lambda m, a, k, y: seen.append("kw"), with_kwargs=True),
    "pre": lambda m, seen: m.register_forward_pre_hook(lambda *call: seen.append("pre")),
    "backward": lambda m, seen: m.register_full_backward_hook(lambda *call: seen.append("backward")),
    "backward pre": lambda m, seen: m.register_full_backward_pre_hook(lambda *call: seen.append("backward pre")),
    "state": lambda m, seen: m.register_state_dict_post_hook(lambda *call: seen.append("state")),
    "state pre": lambda m, seen: m.register_state_dict_pre_hook(lambda *call: seen.append("state pre")),
    "load pre": lambda m, seen: m.register_load_state_dict_pre_hook(lambda module, *call: seen.append(type(module))),
    "load": lambda m, seen: m.register_load_state_dict_post_hook(lambda *call: seen.append("load")),
}


def use(net, x):
    net(x).sum().backward()
    net.load_state_dict(net.state_dict())


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_run_after_the_swap_and_after_restore(net, x, name):
    seen, plan = [], make_plan(find_pools(net, SIZE))
    handle = HOOKS[name](net[1], seen)
    use(net, x)
    stock = len(seen)
    assert stock > 0
    swap_pools(net, plan, prove=False)
    use(net, x)
    assert len(seen) == 2 * stock
    if name == "load pre":
        assert seen[-1] is type(net[1])
    restore(net)
    use(net, x)
    assert len(seen) == 3 * stock
    handle.remove()
    use(net, x)
    assert len(seen) == 3 * stock


def test_a_handle_taken_before_the_swap_removes_the_hook(net, x):
    seen = []
    handle = net[1].register_forward_hook(lambda *call: seen.append(1))
    swapped(net)
    handle.remove()
    seen.clear()
    net(x)
    assert seen == []


def test_a_hook_that_changes_the_output_still_does(net, x):
    net[1].register_forward_hook(lambda module, args, y: torch.zeros_like(y))
    assert torch.equal(swapped(net)(x), net[4].bias.expand(2, -1))


def test_attributes_are_carried_over(net):
    swapped(net)
    assert (net[1].i, net[1].f, net[1].where()) == (1, -1, "layer 1 from -1")
    assert (net[1].kernel_size, net[1].stride, net[1].padding, net[1].ceil_mode) == (2, 2, 0, False)
    assert (net[2].kernel_size, net[2].count_include_pad) == (3, True)
    assert net[1].geometry.kernel_size == (2, 2)


def test_it_is_an_instance_of_both_classes(net):
    swapped(net)
    assert isinstance(net[1], SoftPool)
    assert isinstance(net[1], Marked)
    assert isinstance(net[2], nn.AvgPool2d)
    assert not isinstance(net[2], nn.MaxPool2d)
    assert type(net[1]).__name__ == "SoftPool"
    assert "SoftPool(2x2/2" in repr(net)
    restore(net)
    assert type(net[1]) is Marked


def test_skip_connections_by_isinstance_stay():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2), nn.MaxPool2d(2))

        def forward(self, x):
            skips = []
            for layer in self.features:
                if isinstance(layer, nn.MaxPool2d):
                    skips.append(x)
                x = layer(x)
            return len(skips)

    assert swapped(Encoder())(torch.zeros(1, *SIZE)) == 2


def test_the_forward_takes_what_the_stock_layer_takes(net):
    swapped(net)
    assert list(inspect.signature(net[1].forward).parameters) == ["input"]
    y = torch.randn(1, 4, 6, 6)
    assert torch.equal(net[1](input=y), net[1](y))


def test_copies_and_pickles_stand_in_too(net, x):
    file = io.BytesIO()
    torch.save(swapped(net), file)
    file.seek(0)
    for twin in (copy.deepcopy(net), torch.load(file, weights_only=False)):
        assert isinstance(twin[1], SoftPool)
        assert isinstance(twin[1], Marked)
        assert twin[1].where() == "layer 1 from -1"
        assert torch.equal(twin(x), net(x))
        restore(twin)
        assert type(twin[1]) is Marked


def test_compile_and_export(net, x):
    swapped(net)
    expected = net(x)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="aot_eager")(x), expected)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)
