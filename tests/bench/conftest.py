"""What makes a benchmark quick where its numbers are not asked for."""

import gc

import pytest

from poolswap.bench import values


@pytest.fixture(autouse=True)
def small_photographs(monkeypatch):
    """Crops of 32 pixels go through the network that makes activations of them, not of 224."""
    monkeypatch.setattr(values, "_CROP", 32)
    values._feature_maps.cache_clear()
    yield
    values._feature_maps.cache_clear()


@pytest.fixture(autouse=True)
def little_garbage():
    """Every timing collects garbage first, and would go through all that other tests have left."""
    gc.freeze()
    yield
    gc.unfreeze()
