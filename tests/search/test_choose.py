"""The choice under a budget: best first, each site once, nothing that costs too much or gains nothing."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolswap.search import Budget, Candidate, choose
from poolswap.search.choose import fits


def one(path, to="soft", value=1.0, top1=0.0, latency=0.0, params=0.0):
    return Candidate(path=path, to=to, value=value, top1=top1, latency=latency, params=params, seeds=3)


def names(chosen):
    return [(found.path, found.to) for found in chosen]


def test_the_most_valuable_operator_of_each_site_is_chosen():
    candidates = [one("a", "soft", 1), one("a", "lp", 2), one("b", "soft", 3), one("c", "soft", -1), one("d", value=0)]
    assert names(choose(candidates, Budget(max_drop=0))) == [("b", "soft"), ("a", "lp")]


@pytest.mark.parametrize(
    ("budget", "cost"),
    [
        (Budget(max_drop=0.3), {"top1": -0.2}),
        (Budget(max_drop=0, latency=1.1), {"latency": 0.08}),
        (Budget(max_drop=0, params=1.05), {"params": 0.04}),
    ],
)
def test_costs_add_up_and_one_more_that_leaves_the_budget_is_left_out(budget, cost):
    assert names(choose([one("a", value=2, **cost), one("b", **cost)], budget)) == [("a", "soft")]


def test_a_gain_of_one_site_pays_for_no_loss_of_another():
    candidates = [one("a", value=2, top1=5.0), one("b", top1=-1.0)]
    assert names(choose(candidates, Budget(max_drop=0.5))) == [("a", "soft")]


def test_a_faster_operator_makes_room_for_a_slower_one():
    candidates = [one("a", value=3, latency=0.2), one("b", value=1, latency=-0.2)]
    assert names(choose(candidates, Budget(max_drop=0, latency=1.0))) == [("b", "soft"), ("a", "soft")]


def test_a_budget_below_the_stock_models_time_is_met_by_several_sites_together():
    candidates = [one("a", value=3, latency=-0.2), one("b", value=1, latency=-0.3), one("c", value=2, latency=0.1)]
    assert names(choose(candidates, Budget(max_drop=0, latency=0.7))) == [("a", "soft"), ("b", "soft"), ("c", "soft")]
    assert names(choose(candidates, Budget(max_drop=0, latency=0.55))) == [("a", "soft"), ("b", "soft")]
    assert choose(candidates, Budget(max_drop=0, latency=0.4)) == ()
    # What is most valuable saves too little: what saves most is taken instead.
    candidates = [one("a", "lp", value=3, latency=-0.1), one("a", "soft", value=1, latency=-0.5)]
    assert names(choose(candidates, Budget(max_drop=0, latency=0.6))) == [("a", "soft")]


numbers = st.floats(-1, 1).map(lambda value: round(value, 2))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["soft", "lp"]), numbers, numbers, numbers), max_size=6),
    st.floats(0, 1),
    st.floats(0.5, 1.5),
)
def test_a_choice_is_in_the_budget_and_no_candidate_could_be_added(drawn, max_drop, latency):
    unique = {(path, to): one(path, to, value, top1, cost) for path, to, value, top1, cost in drawn}
    budget = Budget(max_drop=max_drop, latency=latency)
    chosen = choose(unique.values(), budget)
    assert len({found.path for found in chosen}) == len(chosen)
    assert not chosen or fits(chosen, budget)
    taken = {found.path for found in chosen}
    for candidate, _ in product(unique.values(), [0]):
        assert candidate.path in taken or candidate.value <= 0 or not fits([*chosen, candidate], budget)
