"""The selector language: strict, in call order, and every miss says what to type instead."""

import nets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from poolswap.errors import InputError, NothingToReplaceError
from poolswap.surgery.plan import make_plan
from poolswap.surgery.selectors import Candidates, select
from poolswap.surgery.sites import find_pools


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.MaxPool2d(3, 2, 1)
        self.body = nn.Sequential(*[nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AvgPool2d(2)])
        self.head = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


SITES = find_pools(Tower(), (3, 64, 64))
WINDOWS = ["stem", "body.0", "body.1", "body.2"]


def choose(selector, **options):
    return list(select(selector, Candidates.of(SITES, **options)))


@pytest.mark.parametrize(
    ("selector", "options", "chosen"),
    [
        ("all", {}, WINDOWS),
        ("first", {}, ["stem"]),
        ("last", {}, ["body.2"]),
        ("2", {}, ["stem", "body.0"]),
        ("first:2", {}, ["stem", "body.0"]),
        ("last:2", {}, ["body.1", "body.2"]),
        ("#3", {}, ["body.1"]),
        ("#3,#1", {}, ["stem", "body.1"]),
        ("body.*", {}, ["body.0", "body.1", "body.2"]),
        ("first, body.2", {}, ["stem", "body.2"]),
        ("all", {"op": "max"}, ["stem", "body.1"]),
        ("first", {"op": "avg"}, ["body.0"]),
        ("all", {"exclude": ["body.*"]}, ["stem"]),
        ("all", {"scopes": ["window", "global"]}, [*WINDOWS, "head"]),
        ("last", {"scopes": ["window", "global"]}, ["head"]),
    ],
)
def test_what_a_selector_chooses(selector, options, chosen):
    assert choose(selector, **options) == chosen


@pytest.mark.parametrize(
    ("selector", "options", "message", "hint"),
    [
        ("5", {}, "asks for 5 of 4", "from 1 to 4"),
        ("0", {}, "asks for 0 of 4", "from 1 to 4"),
        ("#9", {}, "'#9' matches no pooling site", "#1 to #5"),
        ("bodi.1", {}, "'bodi.1' matches no pooling site", "body.1"),
        ("head", {}, "head, a global site", None),
        ("stem", {"op": "avg"}, "stem, which is max pooling, not avg", None),
        ("first,,last", {}, "empty part", None),
        ("all", {"exclude": ["layer9.*"]}, "exclude='layer9.*' matches no site", None),
    ],
)
def test_a_selector_that_matches_nothing_is_an_error_that_names_it(selector, options, message, hint):
    with pytest.raises(InputError) as error:
        choose(selector, **options)
    assert message in error.value.message
    assert hint is None or hint in error.value.hint


@given(count=st.integers(1, 4))
def test_first_and_last_split_the_call_order(count):
    assert choose(f"first:{count}") == WINDOWS[:count]
    assert choose(f"last:{count}") == WINDOWS[-count:]
    assert choose(str(count)) == WINDOWS[:count]


def test_a_shared_module_counts_once():
    sites = find_pools(nets.Shared(), (3, 32, 32))
    assert select("1", Candidates.of(sites)) == ("pool",)
    assert select("#3", Candidates.of(sites)) == ("pool",)
    with pytest.raises(InputError, match="asks for 2 of 1"):
        select("2", Candidates.of(sites))


def test_sites_of_training_only_are_chosen_by_name_alone():
    sites = find_pools(nets.Mixed(), (3, 32, 32))
    assert "pool_1" not in select("all", Candidates.of(sites))
    assert select("pool_1", Candidates.of(sites)) == ("pool_1",)


def test_nothing_to_replace_explains_itself():
    sites = find_pools(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1)), (3, 16, 16))
    with pytest.raises(NothingToReplaceError, match="no window pooling") as error:
        make_plan(sites)
    assert "include_global=True" in error.value.hint
    assert error.value.exit_code == 5
