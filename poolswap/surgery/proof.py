"""The proof of a swap: one forward in which every planned site runs its replacement, and no stock pooling in its place.

A list, a closure or a hook may hold a stock layer that the surgery could not reach. So the swapped model itself runs,
not a copy, with what really holds on to it.
"""

from __future__ import annotations

from collections import Counter

from torch import nn

from poolswap.errors import CheckError, InputError, first_line
from poolswap.inputs import Example, evaluating, fitted, make_inputs, unnoticed
from poolswap.surgery.plan import Plan
from poolswap.surgery.recording import Trace, record
from poolswap.surgery.sites import scope_of


def prove_swap(model: nn.Module, plan: Plan, example: Example | None = None) -> None:
    """Run the swapped model once in eval mode, without gradients; its mode and torch's generator are put back.

    Sites that only training reaches are not part of it. Raises CheckError where the forward does not do as planned, and
    InputError where it cannot run.
    """
    trace = _forward(model, plan, example)
    planned = Counter(swap.site.path for swap in plan.swaps if swap.site.only != "train")
    for path, times in planned.items():
        ran = trace.invocations.get(path, 0)
        if ran != times:
            raise CheckError(
                f"{path} was replaced, but its replacement ran {ran} times in a forward where the stock layer ran "
                f"{times}: something else holds the layer, such as a list, a closure or a hook",
                f"leave it as it is with exclude=[{path!r}]",
            )
    owners = {swap.site.owner: swap.site.path for swap in plan.swaps if swap.site.kind == "functional"}
    for event in trace.events:
        if event.owner in owners and event.call and event.obstacle is None and scope_of(event) == "window":
            raise CheckError(
                f"{event.function} {event.call} still ran in {event.owner or 'the model itself'} after the swap",
                f"leave it as it is with exclude=[{owners[event.owner]!r}]",
            )


def _forward(model: nn.Module, plan: Plan, example: Example | None) -> Trace:
    if plan.input_size is None and example is None:
        raise InputError(
            "the plan has no input size to prove the swap with",
            "make it with input_size=, or give example= (prove=False swaps without the proof)",
        )
    with unnoticed(), evaluating(model):
        args, kwargs = fitted(model, make_inputs(model, plan.input_size or (), 1, example=example))
        try:
            return record(model, args, kwargs)
        except CheckError:
            raise
        except Exception as error:
            raise InputError(
                f"the swapped model cannot run: {first_line(error)}",
                "give what its forward takes as example= (prove=False swaps without the proof)",
            ) from error
