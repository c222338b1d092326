"""`poolswap operators` lists the operators, and what to type for them."""

import json
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint

import pytest
from terminal import terminal

from poolswap.cli.app import main
from poolswap.cli.operators import operators
from poolswap.cli.output import Output
from poolswap.operators import OPERATORS, registry, split_operators
from poolswap.operators.cost import STEM, Cost, measure_costs
from poolswap.operators.describe import typed
from poolswap.operators.registry import parse_operator

SMALL = replace(STEM, site=replace(STEM.site, channels=4), shape=(1, 4, 16, 16))


def test_json_has_every_operator_with_its_options(capsys):
    operators(Output(json=True), cost=False)
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["operators"]}
    assert list(listed) == list(OPERATORS)
    assert listed["lp"]["options"] == {
        "p": {"type": "float", "default": 2.0},
        "learn": {"type": "bool", "default": False},
    }
    assert listed["blur"]["options"]["of"] == {"type": "max|avg", "default": None}
    assert listed["stochastic"]["draws"]
    assert listed["soft"]["replaces"] == ["windows", "heads", "regions"]
    assert listed["lp"]["cost"] is None


def test_the_table_says_what_to_type(capsys):
    operators(Output(), ["lp", "s3", "max"], cost=False)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 4
    assert "p=2.0, learn=false" in lines[1]
    assert "grid=int" in lines[2]
    assert "hint: poolswap convert" in captured.err


@pytest.mark.parametrize("cost", [False, True])
@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal_with_the_formulas_in_sight(width, cost, monkeypatch):
    spent = Cost(forward=12.34, training=100.5, parameters=589_824)
    monkeypatch.setattr("poolswap.operators.cost.measure_costs", lambda chosen, _: {o.name: spent for o in chosen})
    screen = terminal(monkeypatch, width)
    monkeypatch.setenv("NO_COLOR", "1")
    operators(Output(quiet=True), cost=cost)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert {"operator", "formula", "options"} | ({"forward"} if cost else {"replaces"}) <= set(lines[0].split())


@pytest.fixture
def plugins(monkeypatch, tmp_path):
    """Entry points of installed packages: one that works, and three that are broken in their own ways."""
    (tmp_path / "raising_plugin.py").write_text("raise RuntimeError('no licence')\n")
    failing = "from torch import nn\n\n\nclass Pool(nn.Module):\n    def __init__(self):\n        pass\n"
    (tmp_path / "failing_plugin.py").write_text(failing)
    monkeypatch.syspath_prepend(tmp_path)
    values = {"mine": "torch.nn:Identity", "raising": "raising_plugin:Pool", "failing": "failing_plugin:Pool"}
    points = [
        EntryPoint(name, value, registry.GROUP) for name, value in {**values, "soft": "torch.nn:Identity"}.items()
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.GROUP else [])


def test_a_broken_plugin_is_listed_with_its_error_and_stops_nothing(plugins, monkeypatch, capsys):
    monkeypatch.setattr("poolswap.operators.cost.measure_costs", partial(measure_costs, rounds=2))
    monkeypatch.setattr("poolswap.operators.cost.STEM", SMALL)  # that it runs is asked here, and not its time
    assert main(["operators", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["operators"]}
    assert "has the name of a built-in one" in listed.pop("soft")["error"]
    assert "operator 'raising'" in listed["raising"]["error"]
    assert listed.pop("raising")["error"].endswith("cannot be loaded: RuntimeError: no licence")
    assert "'failing' does not work: TypeError" in listed.pop("failing")["error"]
    assert list(listed) == [name for name in (*OPERATORS, "mine") if name != "soft"]
    assert all(entry["error"] is None for entry in listed.values())
    assert main(["operators", "--no-cost"]) == 0
    assert "no licence" in capsys.readouterr().out
    assert "raising" not in split_operators("all")
    assert main(["operators", "raising"]) == 2
    assert main(["operators", "lp", "--no-cost"]) == 0


def test_costs_are_multiples_of_max_pooling(capsys):
    costs = measure_costs([OPERATORS["max"], OPERATORS["lp"], OPERATORS["lip"]], SMALL, rounds=2)
    assert costs["lip"].parameters == 4 * 4 * 9 + 8
    assert costs["max"].parameters == 0
    assert all(cost.forward > 0 and cost.training > 0 for cost in costs.values())
    operators(Output(), ["max", "spp"])
    captured = capsys.readouterr()
    assert "training" in captured.out
    assert captured.out.count("x ") >= 4  # a head alone has its costs too
    assert "3x3/2 p1 on 2x64x56x56" in captured.err
    assert "the whole map on 8x512x7x7" in captured.err


@pytest.mark.parametrize(
    "text", ["soft", "soft:beta=2.0", "lp:p=3.0,learn=true", "spp:levels=1+2+4", "blur:taps=5,of=max"]
)
def test_an_operator_is_printed_as_it_is_typed(text):
    operator, options = parse_operator(text)
    assert typed(operator.name, options) == text
