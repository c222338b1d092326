"""`poolswap operators` lists what `--to` takes."""

import json

from poolswap.cli.operators import operators
from poolswap.operators import OPERATORS
from poolswap.operators.cost import measure_costs


def test_json_has_every_operator_with_its_options(capsys):
    operators(cost=False, as_json=True)
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["operators"]}
    assert list(listed) == list(OPERATORS)
    assert listed["lp"]["options"] == {
        "p": {"type": "float", "default": 2.0},
        "learn": {"type": "bool", "default": False},
    }
    assert listed["blur"]["options"]["of"] == {"type": "max|avg", "default": None}
    assert listed["stochastic"]["random"]
    assert listed["lp"]["cost"] is None


def test_the_table_says_what_to_type(capsys):
    operators(["lp", "s3", "max"], cost=False)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 4
    assert "p=2.0, learn=false" in lines[1]
    assert "grid=int" in lines[2]
    assert "hint: poolswap convert" in captured.err


def test_costs_are_multiples_of_max_pooling(capsys):
    costs = measure_costs([OPERATORS["max"], OPERATORS["lp"], OPERATORS["lip"]], shape=(1, 4, 16, 16), rounds=2)
    assert costs["lip"].parameters == 4 * 4 * 9 + 8
    assert costs["max"].parameters == 0
    assert all(cost.forward > 0 and cost.training > 0 for cost in costs.values())
    operators(["max"])
    captured = capsys.readouterr()
    assert "training" in captured.out
    assert "3x3/2 p1 on 2x64x56x56" in captured.err
