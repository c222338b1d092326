"""No argument of an operator reads or writes memory that is not its own, whatever the backend.

Most of these ended the process, or gave numbers from elsewhere; so they run in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from poolswap.functional import soft_pool2d
from poolswap.ops import soft_pool
from poolswap.ops.checks import check_memory, check_windows
from poolswap.ops.windows import Windows

SETUP = """
import torch
from poolswap.functional import soft_pool2d
from poolswap.ops import use_backend
from poolswap.ops.windows import Windows
op, backward, gradients = (
    getattr(torch.ops.poolswap, "soft_pool" + name) for name in ("", "_backward", "_gradients")
)
windows, one = Windows((3, 3), (2, 2), (1, 1), (1, 1), (64, 64)), torch.ones(())

def sample(layout=torch.contiguous_format, **options):
    return torch.randn(8, 64, 128, 128, **options).contiguous(memory_format=layout)

def cut(x, size=64):
    x.untyped_storage().resize_(size)
    return x

def grad(*shape, **options):
    return torch.ones(*(shape or (8, 64, 64, 64)), **options)
"""


# Runs what stdin names, in turn, and says how each ended.
SERVE = """
import json, sys
backend, snippets = json.load(sys.stdin)
for name, code in snippets.items():
    try:
        with use_backend(backend):
            exec(code)
        outcome = "done"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    print(json.dumps([name, outcome]), flush=True)
"""


STORAGE = {
    "freed": "soft_pool2d(cut(sample(), 0), 3, 2, 1)",
    "too small": "soft_pool2d(cut(sample()), 3, 2, 1)",
    "too small, channels_last": "soft_pool2d(cut(sample(torch.channels_last)), 3, 2, 1)",
    "too small, strided": "soft_pool2d(cut(sample().transpose(2, 3)), 3, 2, 1)",
    "too small, by the operator": "op(cut(sample()), one, *windows)",
    "too small under grad": "torch.func.grad(lambda x: soft_pool2d(x, 3, 2, 1).sum())(cut(sample()))",
    "freed before the backward": (
        "x = sample(requires_grad=True)\ny = soft_pool2d(x, 3, 2, 1)\ncut(x, 0)\ny.sum().backward()"
    ),
    "a freed gradient": "backward(cut(grad(), 0), sample(), one, *windows)",
    "a freed gradient for beta": "gradients(cut(grad(), 0), sample(), one, *windows)",
}
GRADIENT = {
    "of one element": "backward(grad(1), sample(), one, *windows)",
    "of one element, for beta": "gradients(grad(1), sample(), one, *windows)",
    "of another shape": "backward(grad(8, 64, 64, 63), sample(), one, *windows)",
    "of another dtype": "backward(grad(dtype=torch.half), sample(), one, *windows)",
    "on another device": "backward(grad(device='meta'), sample(), one, *windows)",
}
ARGUMENTS = {
    "a short list": "op(sample(), one, (3, 3), (2,), (1, 1), (1, 1), (64, 64))",
    "four dimensions": "op(torch.ones([2] * 6), one, *([1] * 4, [1] * 4, [0] * 4, [1] * 4, [2] * 4))",
    "no leading dimension": "op(torch.ones(4, 4), one, *([2, 2], [2, 2], [0, 0], [1, 1], [2, 2]))",
    "beta of three elements": "op(sample(), torch.ones(3), *windows)",
    "beta on the meta device": "op(sample(), torch.ones((), device='meta'), *windows)",
}


DEFAULT_DEVICE = """
for layout in (torch.contiguous_format, torch.channels_last):
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=layout).requires_grad_()
    with torch.device("meta"):
        y = soft_pool2d(x, 3, 2, 1)
        y.backward(grad(2, 3, 4, 4, device="cpu"))
    assert y.device.type == x.grad.device.type == "cpu"
    assert x.grad.sum().isfinite()
"""
GROUPS = {"storage": STORAGE, "gradient": GRADIENT, "arguments": ARGUMENTS, "device": {"default": DEFAULT_DEVICE}}
SNIPPETS = {f"{group}, {name}": code for group, codes in GROUPS.items() for name, code in codes.items()}


@pytest.fixture(scope="module", params=["auto", "reference"])
def outcomes(request: pytest.FixtureRequest) -> dict[str, str]:
    """How each snippet ended; those after one that ended the process are not there."""
    given = json.dumps([request.param, SNIPPETS])
    command = [sys.executable, "-c", SETUP + SERVE]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    return dict(map(json.loads, done.stdout.splitlines()))


def test_nothing_ends_the_process(outcomes: dict[str, str]) -> None:
    assert list(outcomes) == list(SNIPPETS)


@pytest.mark.parametrize(
    ("group", "messages"),
    [
        ("storage", ("a tensor of shape",)),
        ("gradient", ("the gradient of an output (8, 64, 64, 64)", "soft_pool of a tensor on cpu takes no")),
        ("arguments", ("windows have 1 to 3", "beta has one element", "soft_pool of a tensor on cpu takes no")),
    ],
)
def test_each_is_refused_in_its_own_words(group: str, messages: tuple[str, ...], outcomes: dict[str, str]) -> None:
    for name in GROUPS[group]:
        outcome = outcomes[f"{group}, {name}"]
        assert outcome.startswith(tuple(f"ValueError: {message}" for message in messages)), (name, outcome)


def test_a_default_device_is_not_where_the_output_goes(outcomes: dict[str, str]) -> None:
    assert outcomes["device, default"] == "done"


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("value", [-(2**62), -1, 0, 2**31, 2**62])
def test_windows_that_no_layer_has_are_refused(position: int, value: int) -> None:
    if (position, value) == (2, 0):
        return  # no padding is padding
    lists = [[3, 3], [2, 2], [1, 1], [1, 1], [4, 4]]
    lists[position][1] = value
    x = torch.ones(1, 2, 8, 8)
    with pytest.raises(ValueError, match="no pooling layer"):
        torch.ops.poolswap.soft_pool(x, torch.ones(()), *lists)
    with pytest.raises(ValueError, match="no pooling layer"):
        soft_pool(x, torch.ones(()), Windows(*map(tuple, lists)))


@pytest.mark.parametrize("output", [2, 3, 5])
def test_an_output_size_that_disagrees_with_the_windows_is_refused(output: int) -> None:
    with pytest.raises(ValueError, match="no pooling layer makes such an output"):
        check_windows((1, 2, 8), Windows((2,), (2,), (0,), (1,), (output,)))
    assert check_windows((1, 2, 8), Windows((2,), (2,), (0,), (1,), (4,))) == (1, 2, 4)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_other_types_than_floating_point_are_refused(dtype: torch.dtype) -> None:
    windows = Windows((2, 2), (2, 2), (0, 0), (1, 1), (2, 2))
    with pytest.raises(TypeError, match="floating point"):
        torch.ops.poolswap.soft_pool(torch.ones(1, 2, 4, 4, dtype=dtype), torch.ones(()), *windows)


def test_a_view_needs_no_more_than_its_own_elements() -> None:
    whole = torch.arange(24.0)
    check_memory(whole[20:])
    check_memory(whole[::2])
    check_memory(whole[:1].expand(1000))
    check_memory(whole[24:])
    views = (whole[20:], whole[::2], whole[4:])
    whole.untyped_storage().resize_(80)
    for view in views:
        with pytest.raises(ValueError, match="outside of its storage of 80 bytes"):
            check_memory(view)


def test_zeros_that_are_not_there_pool_as_zeros() -> None:
    assert torch.equal(soft_pool2d(torch._efficientzerotensor((1, 2, 4, 4)), 2), torch.zeros(1, 2, 2, 2))
