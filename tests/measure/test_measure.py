"""Contestants take turns, times are milliseconds, memory is what a call takes, and a distance is never missed."""

import sys
import time
from math import inf, nan

import pytest
import torch
from torch import nn

from poolswap.measure import Rounds, interleave, peak_memory, peak_tensor_bytes, relative_distance
from poolswap.measure.passes import forward_backward


def test_contestants_take_turns_and_each_is_timed_after_a_call_of_its_own():
    order = []
    rounds = interleave({name: (lambda name=name: order.append(name)) for name in "abc"}, 3, warmup=0)
    assert "".join(order) == "aabbcc" + "bbccaa" + "ccaabb"
    timings = [rounds.timing(name) for name in "abc"]
    assert all(0 < t.fastest <= t.low <= t.median <= t.high for t in timings)


def test_times_are_milliseconds():
    assert 20 <= interleave({"sleep": lambda: time.sleep(0.02)}, 2).timing("sleep").median < 500


def test_a_ratio_compares_neighbours_so_a_machine_that_slows_down_does_not_count():
    rounds = Rounds({"twice": [2.0, 4.0, 8.0], "once": [1.0, 2.0, 4.0]})
    ratio = rounds.ratio("twice", "once")
    assert (ratio.low, ratio.median, ratio.high) == (2, 2, 2)


def test_a_limit_ends_the_rounds_after_the_first_three():
    calls = []
    interleave({"slow": lambda: calls.append(time.sleep(0.01))}, 100, warmup=0, limit=0)
    assert len(calls) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_peak_memory_sees_what_a_call_takes_and_not_what_lay_there():
    kept = torch.ones(2**22)
    small, large = peak_memory(lambda: None), peak_memory(lambda: (kept + 1) * 2)
    assert small < 4 * 2**20
    assert 30 * 2**20 <= large < 50 * 2**20  # two results of 16 MiB


def test_the_bytes_of_tensors_are_counted_alone():
    kept = torch.ones(2**20)
    assert 0 <= peak_tensor_bytes(lambda: (kept + 1) * 2) - 2 * 2**22 < 64  # but for two scalars


@pytest.mark.parametrize(
    ("mine", "theirs", "order", "distance"),
    [
        ([3.0, 0.0], [0.0, 4.0], 2, 5 / 4),
        ([3.0, 0.0], [0.0, 4.0], inf, 1),
        ([1.0, 1.0], [1.0, 1.0], 2, 0),
        ([], [], inf, 0),
        ([0.5], [0.0], 2, 0.5),
        ([0.0], [0.0], inf, 0),
        ([inf, nan, 1.0], [inf, nan, 2.0], 2, 0.5),
        ([inf, 1.0], [-inf, 1.0], 2, inf),
        ([nan, 1.0], [1.0, 1.0], inf, inf),
        ([1.0, 1.0], [1.0, nan], 2, inf),
        ([1.0], [1.0, 1.0], 2, inf),
    ],
)
def test_a_distance_is_relative_to_the_second(mine, theirs, order, distance):
    assert relative_distance([torch.tensor(mine)], [torch.tensor(theirs)], order) == pytest.approx(distance)


def test_the_worst_tensor_counts_and_none_may_be_missing():
    one, two = torch.ones(2), torch.full((2,), 2.0)
    assert relative_distance([one, one], [one, two]) == pytest.approx(0.5)
    assert relative_distance([], []) == 0
    assert relative_distance([one], [one, one]) == inf


def test_half_precision_is_compared_in_double():
    x = torch.tensor([60000.0], dtype=torch.float16)
    assert relative_distance([x], [-x]) == pytest.approx(2)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, x):
        return {"first": self.first(x), "second": (self.second(x), x.argmax())}


def test_a_training_pass_reaches_every_output_and_needs_none():
    model = TwoHeads()
    forward_backward(model, ((torch.randn(4, 3),), {}))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    forward_backward(nn.Identity(), ((torch.randn(4, 3),), {}))
