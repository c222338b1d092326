"""What is typed as one word becomes values, or is refused in the words of its flag."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolswap.cli.parsing import parse_input_size, parse_pairs
from poolswap.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=1", 1),
        ("k=0.5", 0.5),
        ("k=true", True),
        ("k=null", None),
        ("k=[1, 2]", [1, 2]),
        ('k={"a": 1}', {"a": 1}),
        ("k=gelu", "gelu"),
        ("k=a=b", "a=b"),
        ("k=", ""),
        ("k=__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("k=" + "9" * 5000, "9" * 5000),
        ("k=" + "[" * 100_000, "[" * 100_000),
    ],
)
def test_values_are_json_or_plain_strings(text, value):
    assert parse_pairs([text], "--set") == {"k": value}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_every_json_value_is_read_as_itself(value):
    assert parse_pairs([f"key={json.dumps(value)}"], "--set") == {"key": value}


@pytest.mark.parametrize("text", ["k", "=1", "a b=1", ""])
def test_what_is_no_key_and_value_is_refused(text):
    with pytest.raises(InputError, match=r"^--set .* is not KEY=VALUE"):
        parse_pairs([text], "--set")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1,4000", (1, 4000)), ("3,224,224", (3, 224, 224)), (" 3, 16 ,112,112 ", (3, 16, 112, 112))],
)
def test_an_input_size_is_two_to_four_numbers(text, size):
    assert parse_input_size(text) == size


@pytest.mark.parametrize(
    "text", ["224", "3,0,224", "3,-1,224", "3,2.5,4", "3,a,4", "1,2,3,4,5", "", "3,,4", "3,4," + "9" * 5000]
)
def test_what_is_no_input_size_is_refused(text):
    with pytest.raises(InputError, match=r"^--input-size .* is not C,H,W, C,L or C,T,H,W"):
        parse_input_size(text)
