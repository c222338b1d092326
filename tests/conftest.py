"""One profile for hypothesis: the same examples every time, and no deadline on a shared machine."""

import pytest
from hypothesis import settings

from poolswap.operators.registry import OPERATORS

settings.register_profile("poolswap", deadline=None, derandomize=True)
settings.load_profile("poolswap")


@pytest.fixture(autouse=True)
def operators_as_they_were():
    """A test that loads an operator of a user's file leaves the registry without it."""
    before = dict(OPERATORS)
    yield
    OPERATORS.clear()
    OPERATORS.update(before)
