"""Variants with an operator for each of their layers."""

import pytest

from poolswap.ablate.grid import make_grid
from poolswap.ablate.mix import is_mix, mix_text, operators_of, parse_mix
from poolswap.ablate.study import Study
from poolswap.ablate.trial import plan_of
from poolswap.errors import InputError
from poolswap.load import load_model
from poolswap.surgery.sites import find_pools

SIZE = (3, 32, 32)
FIRST, SECOND = "maxpool", "layer2.0.downsample.0"


def study(**fields):
    return Study.make(
        {"model": "test_resnet", "data": "digits", "adapt": "scratch", "seeds": 2, "input_size": SIZE, **fields}
    )


@pytest.fixture(scope="module")
def net():
    model, spec = load_model("test_resnet", input_size=SIZE)
    return model, spec, find_pools(model, SIZE)


def test_a_mix_is_text_and_no_operator_is_one():
    operators = {"maxpool": "soft:beta=2,start=1", "a.b": "lp:p=3"}
    text = mix_text(operators)
    assert text == "maxpool=soft:beta=2,start=1; a.b=lp:p=3"
    assert parse_mix(text) == operators
    assert operators_of(text) == ("soft:beta=2,start=1", "lp:p=3")
    assert is_mix(text)
    for operator in ("soft", "soft:beta=2", "pool.py:Mine:size=3"):
        assert not is_mix(operator)
        assert operators_of(operator) == (operator,)
    for wrong in ("maxpool", "maxpool=", "=soft", "a=soft; a=lp", "a=soft;"):
        with pytest.raises(InputError, match="is not a mix"):
            parse_mix(wrong)


def test_a_mix_is_a_row_of_the_grid_with_its_plan(net):
    model, spec, sites = net
    grid = make_grid(study(counts="0", mixes=f"{SECOND}=avg; {FIRST}=lp:p=3"), sites)
    cells = [cell for cell in grid.cells if cell.layers]
    assert [(cell.layers, cell.order, cell.paths) for cell in cells] == [(2, "mixed", (FIRST, SECOND))] * 2
    assert {cell.to for cell in cells} == {f"{FIRST}=lp:p=3; {SECOND}=avg"}
    plan = plan_of(grid.trials[cells[0].key], model, spec)
    assert {swap.site.path: (swap.to, swap.options) for swap in plan.swaps} == {
        FIRST: ("lp", {"p": 3.0}),
        SECOND: ("avg", {}),
    }


def test_a_mix_of_one_operator_is_the_trial_that_an_ablation_has(net):
    _, _, sites = net
    single = make_grid(study(order="single", counts="1"), sites)
    mixed = make_grid(study(counts="0", mixes=f"{FIRST}=soft"), sites)
    assert single.trials.keys() == mixed.trials.keys()


def test_a_mix_that_is_given_twice_is_one_variant(net):
    _, _, sites = net
    twice = [f"{FIRST}=soft; {SECOND}=avg", f"{SECOND}=avg; {FIRST}=soft"]
    grid = make_grid(study(counts="0", mixes=twice), sites)
    assert [(cell.layers, cell.seed) for cell in grid.cells if cell.layers] == [(2, 0), (2, 1)]


def test_a_mix_of_an_unknown_layer_or_operator_is_refused(net):
    _, _, sites = net
    with pytest.raises(InputError, match="no layer of the study"):
        make_grid(study(mixes="nowhere=soft"), sites)
    with pytest.raises(InputError, match="unknown pooling operator"):
        make_grid(study(mixes=f"{FIRST}=sotf"), sites)
