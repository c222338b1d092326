"""No argument of an operator reads or writes memory that is not its own, whatever the backend.

Most of these ended the process, or gave numbers from elsewhere; so each runs in a process of its own.
"""

from __future__ import annotations

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
op, backward, backward_beta = (
    getattr(torch.ops.poolswap, "soft_pool" + name) for name in ("", "_backward", "_backward_beta")
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


def run(code: str, backend: str) -> subprocess.CompletedProcess[str]:
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    script = f"{SETUP}\nwith use_backend({backend!r}):\n{indented}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)


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
    "a freed gradient for beta": "backward_beta(cut(grad(), 0), sample(), one, *windows)",
}
GRADIENT = {
    "of one element": "backward(grad(1), sample(), one, *windows)",
    "of one element, for beta": "backward_beta(grad(1), sample(), one, *windows)",
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


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        *((code, "lies outside of its storage") for code in STORAGE.values()),
        *((code, "gradient of an output|takes no tensor on meta") for code in GRADIENT.values()),
        *((code, "windows have 1 to 3 dimensions|has one element|takes no tensor") for code in ARGUMENTS.values()),
    ],
    ids=[*STORAGE, *(f"a gradient {name}" for name in GRADIENT), *ARGUMENTS],
)
def test_what_would_leave_its_memory_is_refused(code: str, message: str, backend: str) -> None:
    done = run(code, backend)
    assert done.returncode == 1, (done.returncode, done.stderr)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError")
    assert any(part in last for part in message.split("|")), last


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_default_device_is_not_where_the_output_goes(backend: str) -> None:
    code = (
        "for layout in (torch.contiguous_format, torch.channels_last):\n"
        "    x = sample(layout, device='cpu', requires_grad=True)\n"
        "    with torch.device('meta'):\n"
        "        y = soft_pool2d(x, 3, 2, 1)\n"
        "        y.backward(grad(device='cpu'))\n"
        "    assert y.device.type == x.grad.device.type == 'cpu'\n"
        "    assert x.grad.sum().isfinite()\n"
    )
    done = run(code, backend)
    assert done.returncode == 0, done.stderr


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
    whole.untyped_storage().resize_(80)
    for view in (whole[20:], whole[::2], whole[4:]):
        with pytest.raises(ValueError, match="outside of its storage of 80 bytes"):
            check_memory(view)
    check_memory(whole[:20])


def test_zeros_that_are_not_there_pool_as_zeros() -> None:
    assert torch.equal(soft_pool2d(torch._efficientzerotensor((1, 2, 4, 4)), 2), torch.zeros(1, 2, 2, 2))
