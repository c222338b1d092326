"""What every operator of heads promises, whatever it computes."""

import copy

import pytest
import torch
from pools import distinct
from torch import nn

from poolswap.checkpoint import load_checkpoint, save_checkpoint, verify_checkpoint
from poolswap.load import load_model
from poolswap.nn import HeadSite
from poolswap.operators import OPERATORS, parse_operator
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 64, 64)
HEADS = [
    *(name for name, operator in OPERATORS.items() if operator.head),
    *(
        "soft:beta=learn,start=3",
        "soft:beta=channel",
        "sparsemax:beta=channel",
        "gem:p=2,per_channel=true",
        "lse:learn=true",
        "simpool:gamma=2",
    ),
]
DEFINITIONS = {
    "soft": lambda x: ((x.softmax(-1)) * x).sum(-1),
    "gem": lambda x: (x.clamp(min=1e-6) ** 3).mean(-1) ** (1 / 3),
    "gem:p=1": lambda x: x.clamp(min=1e-6).mean(-1),
    "lse": lambda x: x.exp().mean(-1).log(),
    "spp:levels=1": lambda x: x.amax(-1),
}
GRIDS = [name for name in HEADS if name != "spp"]


def make(text: str, **site: object) -> nn.Module:
    torch.manual_seed(0)
    operator, options = parse_operator(text)
    return operator.make(HeadSite(channels=3, **site), options).eval()


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("keepdim", [False, True])
def test_is_its_definition_with_channels_before_or_behind_the_map(name, keepdim):
    x = distinct(2, 3, 5, 4)
    expected = DEFINITIONS[name](x.flatten(2))
    y = make(name, axes=(2, 3), keepdim=keepdim).double()(x)
    torch.testing.assert_close(y, expected[:, :, None, None] if keepdim else expected)
    y = make(name, axes=(1, 2), keepdim=keepdim).double()(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(y, expected[:, None, None, :] if keepdim else expected)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("grid", [(2, 2), (3, 2), (None, 1), (1, 3)])
def test_a_grid_is_pooled_cell_by_cell(name, grid):
    x = distinct(2, 3, 6, 4)
    y = make(name, keepdim=True, output_size=grid).double()(x)
    rows, columns = (o or n for o, n in zip(grid, x.shape[2:], strict=True))
    assert y.shape == (2, 3, rows, columns)
    single = make(name).double()
    for i in range(rows):
        for j in range(columns):
            cell = x[:, :, i * 6 // rows : -(-(i + 1) * 6 // rows), j * 4 // columns : -(-(j + 1) * 4 // columns)]
            torch.testing.assert_close(y[:, :, i, j], single(cell))


@pytest.mark.parametrize("name", HEADS)
def test_single_maps_other_ranks_halves_and_writing_over_the_output(name):
    module, x = make(name), torch.randn(2, 3, 6, 4)
    torch.testing.assert_close(module(x[0]), module(x)[0])
    with pytest.raises((ValueError, IndexError)):
        module(x[0, 0, 0])
    half = copy.deepcopy(module).half()
    torch.testing.assert_close(half(x.half()), module(x.half().float()).half(), rtol=2e-3, atol=2e-3)
    grads = []
    for copied in (False, True):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y.clone() if copied else y).relu_().sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("name", HEADS)
def test_the_gradient_is_exact(name):
    module, x = make(name).double(), distinct(2, 3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiles_without_a_graph_break(name):
    module, x = make(name), torch.randn(2, 3, 6, 4)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("name", HEADS)
def test_a_model_takes_it_trains_and_verifies_and_gives_it_back(name, tmp_path):
    model, spec = load_model("test_resnet", input_size=SIZE)
    x = torch.randn(2, *SIZE)
    before = model.eval()(x)
    swaps = [("global_pool*", name)]
    plan = make_plan(
        find_pools(model, SIZE), None, swaps=swaps, include_global=True, model=spec.reference, input_size=SIZE
    )
    (head,) = swap_pools(model, plan).swapped
    path = tmp_path / "net.safetensors"
    save_checkpoint(model, path, spec=spec, plan=plan)
    assert verify_checkpoint(path).ok
    loaded, _ = load_checkpoint(path)
    assert torch.equal(loaded(x), model.eval()(x))
    loaded.train()(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in loaded.get_submodule(head.path).parameters())
    restore(model)
    assert torch.equal(model.eval()(x), before)


@pytest.mark.parametrize("name", ["gem", "lse:learn=true"])
def test_a_trained_network_starts_where_it_was(name):
    model, _ = load_model("test_resnet", input_size=SIZE)
    x = torch.randn(2, *SIZE)
    before, sites = model.eval()(x), find_pools(model, SIZE)
    swap_pools(model, make_plan(sites, None, swaps=[("global_pool*", name)], include_global=True))
    assert (model(x) - before).norm() < 0.01 * before.norm()


def test_a_beta_for_each_channel_over_time_is_autopool():
    """y_c = sum_t x_t softmax(beta_c x)_t: its mean, softmax and maximum are special cases, side by side."""
    model, x = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten()), distinct(2, 4, 30)
    plan = make_plan(find_pools(model, (4, 30)), "all", "soft:beta=channel,start=1", include_global=True)
    swap_pools(model.double(), plan)
    assert model[0].beta.tolist() == [1, 1, 1, 1]
    torch.testing.assert_close(model(x), (x.softmax(-1) * x).sum(-1))
    model[0].beta.data = torch.tensor([0, 1, 1e4, -1e4]).double()
    y = model(x)
    expected = (x[:, 0].mean(-1), (x[:, 1].softmax(-1) * x[:, 1]).sum(-1), x[:, 2].amax(-1), x[:, 3].amin(-1))
    torch.testing.assert_close(y, torch.stack(expected, 1))
    y[:, 1].sum().backward()
    gradient = model[0].beta.grad
    variance = (x.softmax(-1) * x**2).sum(-1) - (x.softmax(-1) * x).sum(-1) ** 2
    torch.testing.assert_close(gradient, torch.tensor([0, 1, 0, 0]) * variance[:, 1].sum())
