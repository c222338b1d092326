"""One output-size formula: it is torch's, for every geometry that torch takes."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from timm.layers.pool2d_same import MaxPool2dSame
from torch.nn import functional as F

from poolswap.geometry import Geometry


@given(
    n=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 6),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    ceil_mode=st.booleans(),
)
def test_output_size_is_that_of_max_pool(n, kernel, stride, padding, dilation, ceil_mode):
    assume(2 * padding <= kernel)
    arguments = (kernel, stride, padding, dilation, ceil_mode)
    x = torch.empty(1, 1, n, device="meta")
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
