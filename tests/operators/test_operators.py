"""What every operator of the registry promises, whatever it computes."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import STEM, VARIANTS, distinct, geometries, make, stock
from torch import nn
from torch.nn import functional as F

from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.nn import AdaptiveSoftPool, GlobalSoftPool, HeadSite
from poolswap.nn.spp import SpatialPyramidPool
from poolswap.operators.registry import OPERATORS, parse_operator


def stirred(module: nn.Module) -> nn.Module:
    """With parameters away from their symmetric start, where gradients and gates would be trivial."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.6 + 0.1)
    return module


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=8)
@given(st.data())
def test_the_shape_is_that_of_max_pooling_in_every_geometry(name, data):
    dims = data.draw(st.integers(1, 3))
    geometry, size = data.draw(geometries(dims))
    module, x = make(name, geometry, channels=2), torch.randn(2, 2, *size)
    expected = (2, 2, *geometry.output_size(size))
    if not geometry.same:
        assert stock("max", geometry)(x).shape == expected
    for training in (True, False):
        y = module.train(training)(x)
        assert y.shape == expected
        assert y.isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_map_smaller_than_its_window_fits_by_its_padding(name):
    geometry = Geometry.make(3, 3, 2, 1)
    x = torch.randn(1, 3, 2, 4, 4, requires_grad=True)
    y = make(name, geometry)(x)
    assert y.shape == stock("max", geometry)(x).shape
    y.sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("same", [False, True])
def test_padding_never_enters_a_window(name, same):
    """A window of one value pools to that value at the border as inside; a zero or a -inf from padding would show."""
    geometry = Geometry.make(2, 3, 2, 0 if same else 1, same=same)
    module = make(name, geometry)
    for training in (True, False):
        y = module.train(training)(torch.full((1, 3, 7, 8), 5.0))
        torch.testing.assert_close(y, torch.full_like(y, 5.0))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_is_exact(name):
    module = stirred(make(name, channels=2).double().eval())
    x = distinct(2, 2, 5, 4).requires_grad_()
    parameters = tuple(module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))


@pytest.mark.parametrize("name", [n for n in VARIANTS if n.partition(":")[0] in ("stochastic", "s3", "mixed")])
def test_the_gradient_of_a_draw_is_exact(name):
    module, x = make(name, channels=2).double().train(), distinct(1, 2, 5, 4).requires_grad_()

    def pool(x):
        torch.manual_seed(5)
        return module(x)

    assert torch.autograd.gradcheck(pool, (x,))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("after", [lambda y: y.relu_(), lambda y: y.add_(1)])
def test_what_follows_may_write_over_the_output(name, after):
    """As nn.ReLU(inplace=True) does behind a stock layer: nothing that the gradient needs lies in the output."""
    module, grads = stirred(make(name)), []
    for copied in (False, True):
        x = distinct(2, 3, 6, 7, dtype=torch.float32).requires_grad_()
        torch.manual_seed(1)
        y = module(x)
        after(y.clone() if copied else y).square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("scale", [1e4, 1e-4, 0.0])
def test_output_and_gradients_are_finite_at_every_scale(name, scale):
    module = stirred(make(name))
    x = (torch.randn(1, 3, 6, 7, generator=torch.Generator().manual_seed(2)) * scale).requires_grad_()
    y = module(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (x, *module.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", VARIANTS)
def test_halves_are_computed_in_float32(name, dtype):
    module = stirred(make(name)).to(dtype).eval()
    x = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(2)).to(dtype)
    y = module(x)
    assert y.dtype == dtype
    assert torch.equal(y, copy.deepcopy(module).float()(x.float()).to(dtype))


@pytest.mark.parametrize("name", VARIANTS)
def test_empty_batches_and_single_maps_pool_as_in_torch(name):
    module, x = make(name).eval(), torch.randn(2, 3, 6, 7)
    assert module(x[:0]).shape == (0, 3, 3, 4)
    torch.testing.assert_close(module(x[0]), module(x)[0])
    with pytest.raises(ValueError, match="2d pooling takes 3 or 4 dimensions"):
        module(x[0, 0])
    with pytest.raises(TypeError, match="floating point"):
        module(torch.zeros(1, 3, 6, 7, dtype=torch.int64))


@pytest.mark.parametrize("name", VARIANTS)
def test_its_checkpoint_does_not_load_into_the_stock_layer(name):
    state = nn.Sequential(make(name)).state_dict()
    assert state
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "0\.'):
        nn.Sequential(nn.MaxPool2d(3, 2, 1)).load_state_dict(state)


@pytest.mark.parametrize("name", VARIANTS)
def test_its_state_comes_back_from_a_checkpoint(name):
    module, other = stirred(make(name)).eval(), make(name).eval()
    other.load_state_dict(module.state_dict())
    x = torch.randn(1, 3, 6, 7)
    assert torch.equal(other(x), module(x))


@pytest.mark.parametrize("name", VARIANTS)
def test_draws_follow_torchs_generator_and_eval_mode_draws_nothing(name):
    module, x = make(name), torch.randn(2, 3, 16, 16)
    draws = []
    for seed in (1, 1, *range(2, 12)):
        torch.manual_seed(seed)
        draws.append(module.train()(x))
    assert torch.equal(draws[0], draws[1])
    varies = any(not torch.equal(draws[0], other) for other in draws)
    operator, options = parse_operator(name)
    assert varies == (operator.draws and (operator.name != "mixed" or options.get("random", False)))
    before = torch.get_rng_state()
    assert torch.equal(module.eval()(x), module(x))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "op"), [("max", "max"), ("avg", "avg"), ("mixed", "max"), ("mixed", "avg")])
@settings(max_examples=10)
@given(st.data())
def test_a_start_as_the_stock_layer_is_the_stock_layer(name, op, data):
    geometry, size = data.draw(geometries(data.draw(st.integers(1, 3))))
    if geometry.same or (op == "avg" and max(geometry.dilation) > 1):
        return
    x = torch.randn(2, 2, *size)
    y, expected = make(name, geometry, start=op)(x), stock(op, geometry)(x)
    # mixed is off by sigmoid(-7) of max - avg, and no two elements of x lie 10 apart
    torch.testing.assert_close(y, expected, rtol=0, atol=0.01 if name == "mixed" else 1e-6)


@pytest.mark.parametrize("name", ["lip", "dpp", "dpp:asymmetric=true"])
def test_a_start_as_average_pooling_is_average_pooling(name):
    x = torch.randn(2, 3, 9, 8)
    y = make(name, start="avg")(x)
    torch.testing.assert_close(y, stock("avg", STEM)(x), rtol=0, atol=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_compiles_without_a_graph_break(name):
    module, x = stirred(make(name)), distinct(2, 3, 6, 7, dtype=torch.float32).requires_grad_()
    for training in (True, False):
        torch._dynamo.reset()
        compiled = torch.compile(module.train(training), fullgraph=True, backend="aot_eager")
        torch.manual_seed(1)
        y = compiled(x)
        if not training:
            torch.testing.assert_close(y, module(x))
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert grad.isfinite().all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_exports_in_eval_mode_with_a_dynamic_batch(name):
    module = stirred(make(name)).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (torch.randn(2, 3, 6, 7),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 6, 7)
    torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("write", [torch.relu_, lambda y: F.dropout(y, inplace=True), lambda y: y.add_(1)])
def test_what_follows_may_write_over_its_output(name, write):
    """ReLU(inplace=True), Dropout(inplace=True), x += skip: as after torch's own pools."""
    module = stirred(make(name))
    for x in (torch.randn(2, 3, 6, 7, requires_grad=True), torch.randn(3, 6, 7, requires_grad=True)):
        write(module(x)).sum().backward()
        assert x.grad is not None


@pytest.mark.parametrize("beta", [1.0, "learn"])
@pytest.mark.parametrize("write", [torch.relu_, lambda y: y.add_(1)])
def test_what_follows_a_head_may_write_over_its_output(beta, write):
    x = torch.randn(2, 3, 6, 7, requires_grad=True)
    for pool in (AdaptiveSoftPool((1, 1), beta=beta), AdaptiveSoftPool((4, 3), beta=beta)):
        write(pool(x)).sum().backward()
    for pool in (GlobalSoftPool((2, 3), beta=beta), SpatialPyramidPool(HeadSite())):
        write(pool(x)).sum().backward()


def test_every_operator_says_what_it_computes():
    for name, operator in OPERATORS.items():
        assert operator.name == name
        assert 10 < len(operator.formula) < 90
        assert operator.paper or name in ("max", "avg")


@pytest.mark.parametrize("text", ["soft:beta=1e39", "soft:beta=learn,start=-1e39", "gem:p=1e38", "lse:r=1e-50"])
def test_a_number_that_float32_has_no_room_for_is_refused(text):
    with pytest.raises(InputError, match="between 1e-30 and 1e\\+30 in magnitude") as caught:
        parse_operator(text)
    assert parse_operator(caught.value.hint)


def test_windows_without_an_element_stay_finite_where_they_are_averaged():
    """Dilation with padding can make one; its mean is 0."""
    geometry = Geometry.make(1, 2, 1, 1, dilation=2)
    assert make("avg", geometry)(torch.ones(1, 1, 1)).tolist() == [[[0.0]]]
    assert make("max", geometry)(torch.ones(1, 1, 1)).tolist() == [[[-math.inf]]]
