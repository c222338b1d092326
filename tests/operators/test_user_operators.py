"""A user's own operator: from a file that the user names, or from an installed package's entry point."""

import json
import os
import re
import shlex
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.nn import HeadSite, WindowSite
from poolswap.operators import OPERATORS, registry
from poolswap.operators.describe import usage
from poolswap.operators.registry import all_operators, find_operator, parse_operator
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

FILE = '''
from __future__ import annotations

import torch
from poolswap.nn import HeadPool, WindowPool
from poolswap.operators import Operator

print("the file has run")


class Last(WindowPool):
    """The last element of each window."""

    def __init__(self, site, *, scale: float = 1.0) -> None:
        super().__init__(site)
        self.scale, self.channels = scale, site.channels

    def forward(self, x):
        return self.scale * torch.nn.functional.max_pool2d(x, self.kernel_size, self.stride)


class Plain(torch.nn.Module):
    def __init__(self, site, times: int = 2) -> None:
        super().__init__()
        self.times = times


class LastOfMap(HeadPool):
    """The last element of the map."""

    def pool(self, x):
        return x[..., -1, -1]


last = Operator("last", Last, LastOfMap)


def function(x):
    return x
'''
GEOMETRY = Geometry.make(2, 2)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pool.py"
    path.write_text(FILE)
    return path


def test_a_file_that_is_named_is_run_once(file, capsys):
    operator, options = parse_operator(f"{file}:Last:scale=3")
    assert options == {"scale": 3.0}
    assert operator.formula == "The last element of each window"
    module = operator.make(WindowSite(GEOMETRY, channels=5, stock="max"), options)
    assert module.channels == 5
    assert module(torch.ones(1, 1, 4, 4)).unique().tolist() == [3.0]
    assert list(module.state_dict()) == ["Last"]
    assert parse_operator(f"{file}:Last")[0] is operator
    assert capsys.readouterr().out.count("the file has run") == 1


def test_a_file_that_changed_is_run_again(file):
    before, _ = parse_operator(f"{file}:Last")
    file.write_text(FILE.replace("The last element", "Nothing but the last element"))
    os.utime(file, ns=(0, 1))
    after, _ = parse_operator(f"{file}:Last")
    assert (before.formula, after.formula) == (
        "The last element of each window",
        "Nothing but the last element of each window",
    )


def test_the_built_in_operators_cannot_be_changed():
    with pytest.raises(TypeError):
        OPERATORS["soft"] = OPERATORS["max"]


def test_a_name_in_a_plan_runs_no_file(file, capsys):
    with pytest.raises(InputError, match="has not been run"):
        find_operator(f"{file}:Last")
    assert capsys.readouterr().out == ""


def test_any_module_class_that_takes_a_site_will_do(file):
    operator, options = parse_operator(f"{file}:Plain:times=4")
    assert operator.make(WindowSite(GEOMETRY), options).times == 4


def test_annotations_that_only_a_type_checker_can_read_do_no_harm(file):
    file.write_text(FILE.replace("def __init__(self, site, *,", "def __init__(self, site: WindowSite, *,"))
    operator, options = parse_operator(f"{file}:Last:scale=3")
    assert options == {"scale": 3.0}
    assert usage(operator) == "scale=1.0"


def test_what_is_no_module_class_is_refused(file):
    with pytest.raises(InputError, match="not a pooling module class"):
        parse_operator(f"{file}:function")
    with pytest.raises(InputError, match="has no 'Nothing'"):
        parse_operator(f"{file}:Nothing")
    with pytest.raises(InputError, match="there is no file"):
        parse_operator("nowhere.py:Pool")


@pytest.mark.parametrize(("to", "made"), [("last", {"1": "Last", "2": "LastOfMap"}), ("LastOfMap", {"2": "LastOfMap"})])
def test_what_the_plan_says_is_what_the_model_has(file, to, made):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)), torch.randn(2, 3, 32, 32)
    plan = make_plan(find_pools(model, x.shape[1:]), "all", f"{file}:{to}", include_global=True)
    assert plan.operators == (f"{file}:{to}",)
    report = swap_pools(model, plan)
    assert {swapped.path: type(model.get_submodule(swapped.path)).__name__ for swapped in report.swapped} == made
    assert all(model.get_submodule(path).state_dict() for path in made)
    assert torch.equal(model(x), model[:2](x)[:, :, -1:, -1:])


def test_a_window_operator_is_not_for_a_head(file):
    sites = find_pools(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), (3, 32, 32))
    with pytest.raises(InputError, match="is a global site, which operator"):
        make_plan(sites, "all", f"{file}:Last", include_global=True)
    operator, _ = parse_operator(f"{file}:last")
    with pytest.raises(InputError, match="takes no option 'scale' at a head"):
        operator.make(HeadSite(), {"scale": 2})


def test_an_entry_point_is_loaded_when_it_is_named(file, monkeypatch):
    points = [
        EntryPoint("mine", "torch.nn:Identity", registry.GROUP),
        EntryPoint("broken", "no_such_package:Pool", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])
    assert find_operator("mine").window is nn.Identity
    with pytest.raises(InputError, match=r"operator 'broken' .* cannot be loaded"):
        find_operator("broken")
    points.pop()
    assert "mine" in all_operators()
    with pytest.raises(InputError, match="unknown pooling operator 'mime'") as caught:
        find_operator("mime")
    assert "mine" in caught.value.hint


PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(# pool.py\n.*?)```\n\n```bash\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_operator_of_the_documentation_converts_verifies_and_exports(tmp_path, monkeypatch, capsys):
    code, commands = EXAMPLE
    assert len(code.splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    Path("pool.py").write_text(code)
    convert, verify, export = (
        shlex.split(line)[1:] for line in commands.replace("resnet50d", "test_resnet").splitlines()
    )
    assert main([*convert, "--input-size", "3,32,32", "--json"]) == 0
    swaps = json.loads(capsys.readouterr().out)["plan"]["swaps"]
    assert {swap["to"] for swap in swaps} == {"pool.py:midrange"}
    assert {swap["site"]["scope"] for swap in swaps} == {"window", "global"}
    assert main(verify) == 0
    assert main(verify[:-1]) == 2  # without --trust-code
    assert main(export) == 0
    assert Path("test_resnet-midrangepool.onnx").is_file()


@pytest.mark.parametrize("site", [WindowSite(Geometry.make(2, 2), channels=3), HeadSite(keepdim=True, channels=3)])
def test_the_operator_of_the_documentation_is_halfway_between_max_and_mean(site, tmp_path):
    path = tmp_path / "pool.py"
    path.write_text(EXAMPLE[0])
    operator, options = parse_operator(f"{path}:midrange:scale=2")
    module, x = operator.make(site, options), torch.randn(2, 3, 2, 2)
    torch.testing.assert_close(module(x), x.amax((2, 3), keepdim=True) + x.mean((2, 3), keepdim=True))
    assert list(module.state_dict()) == ["scale"]
