"""One output-size formula: it is torch's, for every geometry that torch takes."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from timm.layers.pool2d_same import MaxPool2dSame
from torch.nn import functional as F

from poolswap.geometry import Geometry


@given(
    n=st.integers(0, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 6),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    ceil_mode=st.booleans(),
)
def test_output_size_is_that_of_max_pool(n, kernel, stride, padding, dilation, ceil_mode):
    assume(2 * padding <= kernel)
    arguments = (kernel, stride, padding, dilation, ceil_mode)
    x = torch.empty(1, 1, n)
    try:
        expected = F.max_pool2d(x.unsqueeze(-2), (1, kernel), (1, stride), (0, padding), (1, dilation), ceil_mode)
    except RuntimeError:
        with pytest.raises(ValueError, match="no window fits"):
            Geometry.make(1, *arguments).output_size((n,))
        return
    assert Geometry.make(1, *arguments).output_size((n,)) == (expected.shape[-1],)


@given(n=st.integers(1, 60), kernel=st.integers(1, 5), stride=st.integers(1, 4))
def test_same_padding_is_that_of_timm(n, kernel, stride):
    expected = MaxPool2dSame(kernel, stride)(torch.zeros(1, 1, n, n)).shape[-2:]
    assert Geometry.make(2, kernel, stride, same=True).output_size((n, n)) == tuple(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel_size": 0}, "must be positive"),
        ({"kernel_size": 2, "stride": 0}, "must be positive"),
        ({"kernel_size": 2, "padding": 2}, "half the window"),
        ({"kernel_size": 3, "padding": 1, "same": True}, "SAME"),
        ({"kernel_size": (2, 2, 2)}, "3 values where 2"),
        ({"kernel_size": 2, "dilation": 0}, "must be positive"),
        ({"kernel_size": 2, "dilation": 3, "padding": 2}, "half the window"),
        ({"kernel_size": 2**62}, "below"),
    ],
)
def test_what_torch_refuses_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Geometry.make(2, **arguments)


@pytest.mark.parametrize(
    ("geometry", "text"),
    [
        (Geometry.make(2, 3, 2, 1), "3x3/2 p1"),
        (Geometry.make(2, (2, 3), (1, 2), dilation=2, ceil_mode=True), "2x3/1x2 d2 ceil"),
        (Geometry.make(1, 4, same=True), "4/4 same"),
    ],
)
def test_short_form(geometry, text):
    assert str(geometry) == text


# What corrupted the heap, divided by zero and hung, before every way to a Geometry checked it.
HOSTILE = {
    "mixed signs": {"kernel_size": (2, 3), "stride": (7, 3), "padding": (-8, 5), "dilation": (-5, 2)},
    "dilation 0": {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (0, 1)},
    "beyond 32 bits": {"kernel_size": (2**62, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)},
    "no dimension": {"kernel_size": (), "stride": (), "padding": (), "dilation": ()},
    "four dimensions": {"kernel_size": (2,) * 4, "stride": (2,) * 4, "padding": (0,) * 4, "dilation": (1,) * 4},
    "uneven": {"kernel_size": (2, 2), "stride": (2,), "padding": (0, 0), "dilation": (1, 1)},
    "lists": {"kernel_size": [2, 2], "stride": [0, 2], "padding": [0, 0], "dilation": [1, 1]},
    "not numbers": {"kernel_size": ("2", 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, None)},
}


def called(fields):
    return Geometry(**fields)


def changed(fields):
    return replace(Geometry.make(2, 2), **fields)


def validated(fields):
    return TypeAdapter(Geometry).validate_python(fields)


def unpickled(fields):
    forged = copy.copy(Geometry.make(2, 2))
    for name, value in fields.items():
        object.__setattr__(forged, name, value)
    return pickle.loads(pickle.dumps(forged))


@pytest.mark.parametrize("make", [called, changed, validated, unpickled])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_way_leads_to_a_geometry_that_torch_refuses(make, name):
    with pytest.raises(ValueError, match=r"must be|valid"):
        make(HOSTILE[name])


def test_a_sound_geometry_survives_copies():
    geometry = Geometry.make(2, (2, 3), 1, 1, (1, 2), ceil_mode=True)
    assert pickle.loads(pickle.dumps(geometry)) == copy.deepcopy(geometry) == replace(geometry) == geometry
