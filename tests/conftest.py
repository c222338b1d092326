"""A process for each core and one torch thread in each; hypothesis draws the same examples every time."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts; processes that tests start inherit it
os.environ["OMP_WAIT_POLICY"] = "passive"  # where there are more threads, one that waits does not burn its core

import pytest
import torch
from hypothesis import settings

settings.register_profile("poolswap", deadline=None, derandomize=True)  # no deadline on a shared machine
settings.load_profile("poolswap")


def pytest_xdist_auto_num_workers(config):
    """Tests asked for by name run in this very process: they start sooner, and `-s` shows what they print."""
    return 0 if all("::" in argument for argument in config.args) else None


def pytest_collection_modifyitems(items):
    """The README's commands take longest: begun first, they keep nobody waiting at the end."""
    items.sort(key=lambda item: item.name != "test_the_commands_of_a_page_run_in_its_order[README.md, shortened]")


@pytest.fixture
def three_threads():
    """For what holds only, or only says something, where torch has threads to give work to."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
