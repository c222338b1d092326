"""A user's own operator: from a file that the user names, or from an installed package's entry point."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import nn

from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.operators import registry
from poolswap.operators.registry import OPERATORS, all_operators, find_operator, parse_operator

FILE = '''
from __future__ import annotations

import torch
from poolswap.nn import WindowPool

print("the file has run")


class Last(WindowPool):
    """The last element of each window."""

    def __init__(self, geometry, *, scale: float = 1.0, channels: int) -> None:
        super().__init__(geometry)
        self.scale, self.channels = scale, channels

    def forward(self, x):
        return self.scale * torch.nn.functional.max_pool2d(x, self.kernel_size, self.stride)


class Plain(torch.nn.Module):
    def __init__(self, geometry, times: int = 2) -> None:
        super().__init__()
        self.times = times


def function(x):
    return x
'''
GEOMETRY = Geometry.make(2, 2)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "OPERATORS", dict(OPERATORS))
    path = tmp_path / "pool.py"
    path.write_text(FILE)
    return path


def test_a_file_that_is_named_is_run_once(file, capsys):
    operator, options = parse_operator(f"{file}:Last:scale=3")
    assert options == {"scale": 3.0}
    assert operator.summary == "The last element of each window."
    module = operator.make(GEOMETRY, options, channels=5, stock="max")
    assert module.channels == 5
    assert module(torch.ones(1, 1, 4, 4)).unique().tolist() == [3.0]
    assert list(module.state_dict()) == ["Last"]
    assert find_operator(operator.name) is operator
    parse_operator(f"{file}:Last")
    assert capsys.readouterr().out.count("the file has run") == 1


def test_a_name_in_a_plan_runs_no_file(file, capsys):
    with pytest.raises(InputError, match="has not been run"):
        find_operator(f"{file}:Last")
    assert capsys.readouterr().out == ""


def test_any_module_class_that_takes_a_geometry_will_do(file):
    operator, options = parse_operator(f"{file}:Plain:times=4")
    assert operator.make(GEOMETRY, options).times == 4


def test_what_is_no_module_class_is_refused(file):
    with pytest.raises(InputError, match="not a pooling module class"):
        parse_operator(f"{file}:function")
    with pytest.raises(InputError, match="has no 'Nothing'"):
        parse_operator(f"{file}:Nothing")
    with pytest.raises(InputError, match="there is no file"):
        parse_operator("nowhere.py:Pool")


def test_an_entry_point_is_loaded_when_it_is_named(file, monkeypatch):
    points = [
        EntryPoint("mine", "torch.nn:Identity", registry.GROUP),
        EntryPoint("broken", "no_such_package:Pool", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])
    assert find_operator("mine").cls is nn.Identity
    with pytest.raises(InputError, match=r"operator 'broken' .* cannot be loaded"):
        find_operator("broken")
    points.pop()
    assert "mine" in all_operators()
    with pytest.raises(InputError, match="unknown pooling operator 'mime'") as caught:
        find_operator("mime")
    assert "mine" in caught.value.hint


def test_the_operator_of_the_documentation_works(file):
    page = Path(__file__).parents[2] / "docs" / "operators.md"
    code = re.search(r"```python\n(# pool.py\n.*?)```", page.read_text(), flags=re.DOTALL)
    file.write_text(code[1])
    operator, options = parse_operator(f"{file}:Midrange:scale=2")
    module, x = operator.make(GEOMETRY, options, channels=3), torch.randn(2, 3, 4, 4)
    expected = torch.nn.functional.max_pool2d(x, 2) + torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(module(x), expected)
    assert list(module.state_dict()) == ["scale"]
