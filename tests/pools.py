"""What the tests of the operators share: modules by what `--to` says, windows and inputs to draw, the stock layers."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from poolswap.geometry import Geometry
from poolswap.nn import WindowSite
from poolswap.operators.registry import OPERATORS, parse_operator

# Every operator, with its options where they change what it computes.
VARIANTS = (
    *(name for name, operator in OPERATORS.items() if operator.window),
    *(
        "lp:p=3,learn=true",
        "gem:per_channel=true",
        "lse:r=2,learn=true",
        "mixed:per_channel=true",
        "mixed:random=true",
        "gated:per_channel=true",
    ),
    *(
        "dpp:asymmetric=true",
        "s3:grid=4",
        "soft:beta=channel",
        "entmax15:beta=channel",
        "blur:taps=5",
        "blur:of=avg",
        "aps:taps=3",
        "aps:of=avg,circular=true",
    ),
)


STEM = Geometry.make(2, 3, 2, 1)


def make(text: str, geometry: Geometry = STEM, channels: int = 3, start: Any = None) -> nn.Module:
    """The module that `--to text` puts in the place of a window pool; `start` is also the stock layer."""
    torch.manual_seed(0)
    operator, options = parse_operator(text)
    return operator.make(WindowSite(geometry, channels=channels, stock=start, start=start), options)


@st.composite
def geometries(draw: Any, dims: int) -> tuple[Geometry, tuple[int, ...]]:
    """(windows that torch's max pooling takes, an input size with a real element in every window)."""
    same = draw(st.integers(0, 3)) == 0
    axes = []
    for _ in range(dims):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        padding = 0 if same else draw(st.integers(0, kernel // 2))
        extent = dilation * (kernel - 1) + 1
        # Dilated over padding, a smaller map can leave a window without an element.
        size = draw(st.integers(extent if dilation > 1 else max(1, kernel - 2 * padding), extent + 5))
        axes.append((kernel, draw(st.integers(1, 4)), padding, dilation, size))
    kernel, stride, padding, dilation, size = zip(*axes, strict=True)
    return Geometry.make(dims, kernel, stride, padding, dilation, draw(st.booleans()) and not same, same), size


def stock(op: str, geometry: Geometry) -> nn.Module:
    """torch's own layer for windows without SAME; average pooling leaves padding out."""
    k, s, p, d, ceil = (geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation, geometry.ceil_mode)
    if op == "max":
        return getattr(nn, f"MaxPool{geometry.dims}d")(k, s, p, d, ceil_mode=ceil)
    return getattr(nn, f"AvgPool{geometry.dims}d")(k, s, p, ceil_mode=ceil, count_include_pad=False)


def distinct(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Noise whose elements differ by far more than a gradcheck's step, none near 0: no kink is crossed."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel()
    values = (torch.randperm(count, generator=generator).double() + 0.37) / count * 4 - 2
    return values.reshape(shape).to(dtype)
