"""Users' models, written to be awkward: every pool is found and replaced, or refused with the reason.

The oracle is the stock model with each of its pooling calls computed as soft pooling where it is called.
"""

import copy
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from kernels import window_kernels
from torch import distributed, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from poolswap.checkpoint import save_checkpoint
from poolswap.cli.app import main
from poolswap.errors import CheckError, ExitCode, InputError, NothingToReplaceError
from poolswap.functional import soft_pool2d
from poolswap.models.load import ModelSpec, Weights
from poolswap.surgery.calls import BY_FUNCTION, read_call
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import restore, swap_pools

SIZE = (3, 24, 24)

# Evaluated without gradients, a reentrant checkpoint warns that there are none.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    """What torch.compile kept of another test's calls decides how it takes the oracle's here."""
    torch._dynamo.reset()


class ByKey(nn.Module):
    """Pools in a ModuleDict."""

    def __init__(self):
        super().__init__()
        self.pools = nn.ModuleDict({"coarse": nn.MaxPool2d(3, 2, 1), "fine": nn.AvgPool2d(2)})

    def forward(self, x):
        return self.pools["fine"](self.pools["coarse"](x))


class Loop(nn.Module):
    """Stages built in a loop, one pool each, and a functional call in a loop over all."""

    def __init__(self):
        super().__init__()
        for i in range(3):
            self.add_module(f"stage{i}", nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(3, 1, 1)))

    def forward(self, x):
        for i in range(3):
            x = F.avg_pool2d(getattr(self, f"stage{i}")(x), 2)
        return x


class Twice(nn.Module):
    """A pool, and an owner of a functional call, called twice each."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.down = Down()

    def forward(self, x):
        return self.down(self.pool(self.down(self.pool(x))))


class Down(nn.Module):
    """An owner of two functional calls, one of them with keyword arguments alone."""

    def forward(self, x):
        return F.avg_pool2d(input=x, kernel_size=3, stride=1, padding=1) + F.max_pool2d(x, 3, 1, 1)


class Slices(nn.Module):
    """A Sequential of which slices run, as feature extractors do."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), Down(), nn.AvgPool2d(2))

    def forward(self, x):
        return self.features[2:](self.features[:2](x))


class Siamese(nn.Module):
    """One tower, two images, weights shared."""

    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), Down())

    def forward(self, x, other=None):
        return self.tower(x) - self.tower(x.flip(-1) if other is None else other)


class Segments(nn.Module):
    """Whole owners under torch.utils.checkpoint, as timm's and torchvision's models do it."""

    def __init__(self, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.conv = nn.Conv2d(3, 4, 3)
        self.block = nn.Sequential(nn.MaxPool2d(2), Down())

    def forward(self, x):
        x = self.conv(x)
        return self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)


class Compiled(nn.Module):
    """A part that is compiled already."""

    def __init__(self):
        super().__init__()
        self.block = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), Down()), backend="eager")

    def forward(self, x):
        return self.block(x)


class Slotted(nn.Module):
    """An owner whose class has slots, with the state methods that torch then needs."""

    __slots__ = ("size",)

    def __init__(self):
        super().__init__()
        self.size = 2

    def __getstate__(self):
        return {**vars(self), "size": self.size}

    def __setstate__(self, state):
        self.size = state.pop("size")
        super().__setstate__(state)

    def forward(self, x):
        return F.max_pool2d(x, self.size)


class Only(nn.Module):
    """Keyword-only tensors."""

    def forward(self, *, image, depth):
        return F.max_pool2d(image, 2) + F.avg_pool2d(depth, 2)


class SoftCalls(TorchFunctionMode):
    """Every window pooling call computed as soft pooling: no module, no lifting."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        entry = BY_FUNCTION.get(func)
        call = read_call(entry, args, kwargs or {}) if entry else None
        if call is None or call.geometry is None:
            return func(*args, **(kwargs or {}))
        x, g = args[0] if args else kwargs["input"], call.geometry
        return soft_pool2d(x, g.kernel_size, g.stride, g.padding, g.dilation, g.ceil_mode)


def swapped(model, size=SIZE, **how):
    swap_pools(model, make_plan(find_pools(model, size, **how)), **how)
    return model


def gradient(model, x):
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    return x.grad


@pytest.fixture
def x():
    return torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(0))


AWKWARD = {
    "ModuleDict": (ByKey, ["pools.coarse", "pools.fine"]),
    "loop": (Loop, ["stage0.1", "pool_1", "stage1.1", "pool_2", "stage2.1", "pool_3"]),
    "twice": (Twice, ["pool", "down.pool_1", "down.pool_2"] * 2),
    "slices": (Slices, ["features.1", "features.2.pool_1", "features.2.pool_2", "features.3"]),
    "siamese": (Siamese, ["tower.1", "tower.2.pool_1", "tower.2.pool_2"] * 2),
    "checkpoint": (lambda: Segments(False), ["block.0", "block.1.pool_1", "block.1.pool_2"]),
    "reentrant checkpoint": (lambda: Segments(True), ["block.0", "block.1.pool_1", "block.1.pool_2"]),
    "compiled part": (Compiled, [f"block._orig_mod.{tail}" for tail in ("1", "2.pool_1", "2.pool_2")]),
    "slots": (Slotted, ["pool_1"]),
    "DataParallel": (lambda: nn.DataParallel(Loop()), None),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_every_pool_is_found_and_replaced(name, x):
    make, paths = AWKWARD[name]
    torch.manual_seed(0)
    model = make().eval()
    stock = copy.deepcopy(model)
    sites = find_pools(model, SIZE)
    if paths is not None:
        assert [site.path for site in sites] == paths
    assert len(sites) == len(window_kernels(model, x))
    swap_pools(model, make_plan(sites))
    assert window_kernels(model, x) == []
    with SoftCalls(), torch.compiler.set_stance("force_eager"):  # torch 2.7 compiles no such mode
        expected = stock(x)
    torch.testing.assert_close(model(x), expected)
    restore(model)
    assert torch.equal(model(x), stock(x))


@pytest.mark.parametrize("name", AWKWARD)
def test_gradients_are_those_of_soft_pooling(name, x):
    """Recomputation under a checkpoint included: it must take the replaced pools too."""
    make, _ = AWKWARD[name]
    torch.manual_seed(0)
    model = make()
    stock = copy.deepcopy(model)
    stock.reentrant = None  # the oracle computes nothing again
    with SoftCalls(), torch.compiler.set_stance("force_eager"):  # torch 2.7 compiles no such mode
        expected = gradient(stock, x)
    torch.testing.assert_close(gradient(swapped(model), x), expected)


@pytest.mark.parametrize("name", [name for name in AWKWARD if name != "compiled part"])
def test_copies_and_pickles_pool_by_themselves(name, x):
    make, _ = AWKWARD[name]
    torch.manual_seed(0)
    model = swapped(make().eval())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    twin, again = copy.deepcopy(model), torch.load(file, weights_only=False)
    expected = model(x)
    restore(model)
    assert torch.equal(twin(x), expected)
    assert torch.equal(again(x), expected)
    assert window_kernels(twin, x) == window_kernels(again, x) == []


@pytest.mark.parametrize("name", ["loop", "twice", "slices", "siamese"])
def test_threads_share_a_swapped_model(name, x):
    model = swapped(AWKWARD[name][0]().eval())
    expected = model(x)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(y, expected) for y in pool.map(model, [x] * 16))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_closure_that_its_owner_checkpoints_is_refused(reentrant, x):
    """Its recomputation would silently take the stock pool's gradient."""

    class Closure(nn.Module):
        def forward(self, x):
            return checkpoint(lambda y: F.max_pool2d(y, 2).square(), x, use_reentrant=reentrant)

    with pytest.raises(CheckError, match="checkpoint a whole module instead"):
        swapped(Closure())


def test_a_branch_that_only_training_takes_is_a_site_of_its_own(x):
    class Branch(nn.Module):
        def forward(self, x):
            if self.training:
                x = x + F.max_pool2d(x, 3, 1, 1)
            return F.avg_pool2d(x, 2)

    model = Branch().eval()
    sites = find_pools(model, SIZE)
    assert [(site.path, site.only) for site in sites] == [("pool_2", None), ("pool_1", "train")]
    swap_pools(model, make_plan(sites, "all"))
    assert (window_kernels(model, x), len(window_kernels(model.train(), x))) == ([], 1)
    restore(model)
    swap_pools(model, make_plan(sites, "#1,#2"))
    assert window_kernels(model.eval(), x) == window_kernels(model.train(), x) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_part_is_refused_with_the_reason(x):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.Sequential(nn.MaxPool2d(2)))).eval()
    (site,) = find_pools(model, SIZE)
    assert (site.replaceable, "TorchScript" in site.reason) == (False, True)
    with pytest.raises((NothingToReplaceError, InputError), match="TorchScript"):
        make_plan([site])


def test_a_patched_forward_is_refused_where_it_pools_and_harmless_elsewhere(x):
    model = nn.Sequential(nn.MaxPool2d(2), nn.Identity()).eval()
    model[1].forward = lambda x: F.avg_pool2d(x, 2)
    module, functional = find_pools(model, SIZE)
    assert module.replaceable
    assert "patched on the instance" in functional.reason
    swap_pools(model, make_plan([module, functional]))
    assert window_kernels(model, x) == ["avg_pool2d"]


def test_keyword_only_tensors_come_from_an_example(x):
    model = Only().eval()
    with pytest.raises(InputError, match="cannot run on an input"):
        find_pools(model, SIZE)
    inputs = {"image": x, "depth": x + 1}
    stock = copy.deepcopy(model)
    swapped(model, example=inputs)
    with SoftCalls():
        expected = stock(**inputs)
    torch.testing.assert_close(model(**inputs), expected)


def test_keyword_only_tensors_on_the_command_line(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, *, image, depth):\n        return F.max_pool2d(self.conv(image), 2) + depth.mean()\n"
        "def inputs():\n    return {'image': torch.ones(1, 3, 16, 16), 'depth': torch.ones(1, 1, 4, 4)}\n"
    )
    command = [sys.executable, "-m", "poolswap", "inspect", "net.py:Net", "--example", "net.py:inputs", "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [site["path"] for site in json.loads(run.stdout)["sites"]] == ["pool_1"]


def test_choosing_one_call_of_an_owner_that_runs_twice_replaces_that_call(x):
    """One call in the text of an owner is one child, however often the owner runs."""
    model = AWKWARD["siamese"][0]().eval()
    swap_pools(model, make_plan(find_pools(model, SIZE), "tower.2.pool_2"))
    assert window_kernels(model, x) == ["max_pool2d_with_indices", "avg_pool2d"] * 2


def test_a_distributed_wrapper_is_swapped_inside(x, tmp_path):
    """SoftPool keeps no parameter, so what the wrapper registered for its reductions still holds."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        plain = Loop()
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
        sites = find_pools(wrapped, SIZE)
        assert [site.path for site in sites] == [f"module.{site.path}" for site in find_pools(plain, SIZE)]
        swap_pools(wrapped, make_plan(sites))
        expected = gradient(swapped(plain), x)
        torch.testing.assert_close(gradient(wrapped, x), expected)
        assert window_kernels(wrapped, x) == []
        for mine, other in zip(plain.parameters(), wrapped.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad)
    finally:
        distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_child_of_a_lifted_owner_is_left_alone(x, tmp_path):
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.part = nn.Conv2d(3, 4, 3), torch.jit.script(nn.ReLU())

        def forward(self, x):
            return F.max_pool2d(self.part(self.conv(x)), 2)

    model = Owner().eval()
    plan = make_plan(find_pools(model, SIZE))
    swap_pools(model, plan)
    assert window_kernels(model, x) == []
    spec = ModelSpec(source="file", name="net.py:make", input_size=SIZE, weights=Weights(kind="random"))
    assert save_checkpoint(model, tmp_path / "a.safetensors", spec=spec, plan=plan).fingerprint.compares


def test_a_forward_that_pools_once_an_image_is_refused_before_anything_is_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n        return torch.stack([F.max_pool2d(image, 2) for image in x]).mean((2, 3))\n"
    )
    assert main(["convert", "net.py:Net", "--input-size", "3,8,8", "-o", "a.safetensors"]) == ExitCode.CHECK_FAILED
    assert "its calls depend on its input" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()
