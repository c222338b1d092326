"""A small model and few digits, for trainings of a second."""

import pytest
from torch.utils.data import Subset

from poolswap import find_pools, load_model, make_plan, swap_pools
from poolswap.adapt import Data, load_data

SIZE = (3, 16, 16)


def net(swap=True, size=SIZE, to="soft", **arguments):
    """(model, spec, plan) of timm's test_resnet, at 16x16 unless told, with `to` for its windows."""
    model, spec = load_model("test_resnet", num_classes=10, input_size=size, **arguments)
    plan = None
    if swap:
        plan = make_plan(find_pools(model, size), "all", to, model=spec.reference, input_size=size)
        swap_pools(model, plan)
    return model, spec, plan


def digits(train=96, val=40, size=SIZE):
    """The first of the digits."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    whole = load_data("digits", input_size=size)
    return Data(Subset(whole.train, range(train)), Subset(whole.val, range(val)), 10, "digits")
