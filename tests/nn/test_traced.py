"""Whatever traces a model with torch's pools traces it with these: torch.fx and its users, TorchScript, ONNX."""

import copy
import io

import pytest
import torch
from nets import Mixed
from pools import VARIANTS, make
from torch import fx, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from poolswap.export.trace import in_standard_operators
from poolswap.functional import soft_pool2d
from poolswap.geometry import Geometry
from poolswap.nn import HeadSite, WindowPool, WindowSite
from poolswap.nn.stock import MaxPool
from poolswap.operators.registry import OPERATORS, parse_operator
from poolswap.surgery.lift import LiftError
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

HEADS = {
    **{f"{name} head": (name, HeadSite(channels=3)) for name, op in OPERATORS.items() if op.head},
    "soft head, keepdim": ("soft:beta=learn", HeadSite(keepdim=True)),
    "soft head, grid of 1": ("soft", HeadSite(output_size=(1, 1))),
    "soft head, grid of 4x3": ("soft", HeadSite(output_size=(4, 3))),
}
POOLS = [*VARIANTS, *HEADS]
WINDOWS = {
    "3x3/2 p1": Geometry.make(2, 3, 2, 1),
    "2x2/2 ceil": Geometry.make(2, 2, 2, ceil_mode=True),
    "3x3/2 same": Geometry.make(2, 3, 2, same=True),
}
SIZES = [(2, 3, 8, 9), (1, 3, 11, 14), (2, 3, 9, 8), (1, 3, 6, 6)]


def network(name, geometry=WINDOWS["3x3/2 p1"]):
    if name in HEADS:
        text, site = HEADS[name]
        operator, options = parse_operator(text)
        pool = operator.make(site, options)
    else:
        pool = make(name, geometry)
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), pool, nn.Flatten()).eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, generator=generator) for size in SIZES]


@pytest.mark.parametrize("name", POOLS)
def test_symbolic_trace_has_one_call_of_the_module(name):
    model = network(name)
    traced = fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes][3] == "call_module"
    assert len(traced.graph.nodes) == 6
    assert all(torch.equal(traced(x), model(x)) for x in inputs())
    assert type(traced.get_submodule("2")) is type(model[2])


@pytest.mark.parametrize("name", POOLS)
def test_features_are_extracted_at_the_pool_and_after_it(name):
    model, x = network(name), inputs()[0]
    assert get_graph_node_names(model)[1][1:] == ["0", "1", "2", "3"]
    features = create_feature_extractor(model, ["2", "3"]).eval()(x)
    assert torch.equal(features["2"], model[:3](x))
    assert torch.equal(features["3"], model(x))


@pytest.mark.filterwarnings("ignore")  # torch.ao's own
@pytest.mark.parametrize("name", POOLS)
def test_quantisation_leaves_it_in_floating_point(name):
    model, x = network(name), inputs()[0]
    prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping(), (x,))
    prepared(x)
    quantised = convert_fx(prepared)
    error = (quantised(x) - model(x)).abs().max()
    assert error < 0.1 * model(x).abs().max() + 0.1


@pytest.mark.parametrize("geometry", WINDOWS.values(), ids=list(WINDOWS))
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_trace_serves_every_size(name, geometry):
    model = network(name, geometry)
    with torch.no_grad():
        traced = torch.jit.trace(model, (inputs()[0],))
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        for x in inputs():
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-5, atol=1e-5)
    assert "poolswap::" not in str(loaded.inlined_graph)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_older_onnx_exporter_takes_it(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, file = network(name), inputs()[0], io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False, opset_version=18)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-4, atol=1e-5)


def swapped():
    torch.manual_seed(0)
    model = Mixed().eval()
    swap_pools(model, make_plan(find_pools(model, (3, 32, 32)), "all", "soft"))
    return model, torch.randn(2, 3, 32, 32)


def test_an_owner_of_lifted_calls_is_one_call_for_fx():
    """Its x.mean() is no function for torch.fx; counted without it, its calls would go to the wrong children."""
    model, x = swapped()
    whole = nn.Sequential(model, nn.Flatten()).eval()
    traced = fx.symbolic_trace(whole)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    assert torch.equal(traced(x), model(x))
    assert torch.equal(create_feature_extractor(whole, ["0"]).eval()(x)["0"], model(x))


def test_a_root_that_pools_by_functions_is_refused_in_words():
    model, _ = swapped()
    with pytest.raises(LiftError, match=r"trace torch\.nn\.Sequential\(model\)"):
        fx.symbolic_trace(model)


@pytest.mark.filterwarnings("ignore")  # torch.ao's and torch.jit's own
def test_a_model_with_lifted_calls_is_quantised_and_traced_by_torchscript():
    model, x = swapped()
    traced = torch.jit.trace(model, (x,))
    other = torch.randn(1, 3, 40, 48)
    torch.testing.assert_close(traced(other), model(other), rtol=1e-5, atol=1e-5)
    quantised = convert_fx(prepare_fx(nn.Sequential(model).eval(), get_default_qconfig_mapping(), (x,)))
    assert torch.equal(quantised(x), model(x))


def test_a_users_operator_is_one_call_too():
    class Mine(WindowPool):
        def forward(self, x):
            return soft_pool2d(x, self.kernel_size) if x.sum() > 0 else x.amax((2, 3))

    class Derived(MaxPool):
        pass

    for cls in (Mine, Derived):
        model = nn.Sequential(cls(WindowSite(Geometry.make(2, 2))), nn.ReLU())
        traced = fx.symbolic_trace(model)
        assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
        x = torch.rand(1, 1, 4, 4)
        assert torch.equal(traced(x), model(x))


def test_a_keyword_call_is_traced_as_one():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = MaxPool(WindowSite(Geometry.make(2, 2)))

        def forward(self, x):
            return self.pool(x=x)

    traced, x = fx.symbolic_trace(Net()), torch.rand(1, 1, 4, 4)
    assert torch.equal(traced(x), Net()(x))


@pytest.mark.parametrize("geometry", WINDOWS.values(), ids=list(WINDOWS))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_betas_of_either_sign_for_each_channel_are_exported_in_standard_operators(geometry):
    pool = make("soft:beta=channel", geometry)
    pool.beta.data = torch.tensor([-3.0, 0.0, 2.0])
    x = inputs()[0]
    program = in_standard_operators(torch.export.export(pool, (x,)))
    assert not [node for node in program.graph.nodes if "poolswap" in str(node.target)]
    torch.testing.assert_close(program.module()(x), pool(x), rtol=1e-5, atol=1e-5)
