"""The bytes of a call, counted by hand."""

from __future__ import annotations

import pytest
import torch
from triton_traffic import traffic

from poolswap.ops.windows import Windows


@pytest.mark.parametrize(
    ("windows", "outputs", "extra"),
    [
        (([2, 2], [2, 2], [0, 0], [1, 1], [4, 4]), 16, 0),
        # three numbers per output written and read (2 + 4 + 4 bytes), x read twice
        (([3, 3], [2, 2], [1, 1], [1, 1], [4, 4]), 16, 2 * 16 * 10 + 64 * 2),
        (([8, 8], [8, 8], [0, 0], [1, 1], [1, 1]), 1, 0),
        # dx is zeroed first: the windows leave elements out
        (([7, 7], [7, 7], [0, 0], [1, 1], [1, 1]), 1, 64 * 2),
    ],
)
def test_every_tensor_once_and_what_the_kernels_add(windows: tuple[list[int], ...], outputs: int, extra: int) -> None:
    planes, element = 6, 2
    x = torch.empty(2, 3, 8, 8, dtype=torch.bfloat16, device="meta")
    counted = traffic(x, Windows(*windows))
    assert counted.forward == planes * element * (64 + outputs)
    assert counted.backward == planes * element * (64 + outputs + 64)
    assert counted.backward_extra == planes * extra
