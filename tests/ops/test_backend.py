"""Which implementation runs is decided in one place: by the device, or by name, and never silently."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from poolswap.functional import soft_pool2d
from poolswap.ops import BackendError, cpu, use_backend
from poolswap.ops import backend as backends
from poolswap.ops import triton as triton_backend
from poolswap.ops.backend import BACKENDS, ENVIRONMENT_VARIABLE, Backend, implementation, select


class Working(Backend):
    def unavailable(self) -> str | None:
        return None


class Broken(Backend):
    def unavailable(self) -> str | None:
        return "the test says so"


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device type whose backend works and one whose backend does not."""
    monkeypatch.setitem(BACKENDS, "good", Working("good", "poolswap.ops.reference", device="good"))
    monkeypatch.setitem(BACKENDS, "bad", Broken("bad", "poolswap.ops.reference", device="bad"))
    select.cache_clear()
    yield
    select.cache_clear()


@pytest.mark.usefixtures("devices")
def test_auto_takes_the_backend_of_the_device() -> None:
    assert select("good").name == "good"


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize("device", ["bad", "mps", "xpu", "meta"])
def test_auto_takes_the_reference_where_there_is_no_other(device: str) -> None:
    assert select(device).name == "reference"


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize("device", ["good", "bad", "cpu", "mps"])
def test_the_reference_runs_on_every_device(device: str) -> None:
    assert select(device, "reference").name == "reference"


@pytest.mark.usefixtures("devices")
@pytest.mark.parametrize(
    ("device", "requested", "reason"),
    [
        ("bad", "bad", "'bad' cannot run here: the test says so"),
        ("cpu", "good", "'good' cannot run on a cpu tensor"),
        ("cpu", "cuda", "'cuda' cannot run on a cpu tensor"),
        ("cpu", "gpu", "unknown backend 'gpu'; there are auto, reference"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(device: str, requested: str, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        select(device, requested)


def test_the_backend_of_every_name_has_the_three_functions() -> None:
    for backend in BACKENDS.values():
        assert all(callable(function) for function in backend.implementation())
        assert backend.unavailable() is None or "\n" not in str(backend.unavailable())


def test_use_backend_holds_for_its_block_only() -> None:
    x = torch.randn(1, 1, 4, 4)
    before = backends.requested()
    with use_backend("cuda"), pytest.raises(BackendError, match="'cuda' cannot run on a cpu tensor"):
        soft_pool2d(x, 2)
    assert backends.requested() == before
    with use_backend("reference"):
        assert implementation(x) == BACKENDS["reference"].implementation()


def test_an_unknown_name_is_refused_where_it_is_set() -> None:
    with pytest.raises(BackendError, match="unknown backend 'tpu'"), use_backend("tpu"):
        pass


def test_threads_ask_for_backends_of_their_own() -> None:
    with use_backend("reference"), ThreadPoolExecutor() as pool:
        assert pool.submit(backends.requested).result() == "auto"
        assert backends.requested() == "reference"


@pytest.mark.parametrize("learn_beta", [False, True])
def test_the_gradient_is_computed_by_the_backend_of_the_value(
    learn_beta: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever autograd runs it: a GPU's gradients run in threads of their own."""
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    beta = torch.ones((), requires_grad=learn_beta)
    with use_backend("reference"):
        y = soft_pool2d(x, 2, beta=beta)
    monkeypatch.setattr(cpu, "backward", lambda *arguments: pytest.fail("another backend's gradient"))
    y.sum().backward()


@pytest.mark.parametrize(
    ("value", "outcome"),
    [("auto", "ran"), ("reference", "ran"), ("cuda", "'cuda' cannot run on a cpu tensor"), ("x", "unknown backend")],
)
def test_the_environment_variable_is_a_request(value: str, outcome: str) -> None:
    code = "import torch, poolswap.functional as F; F.soft_pool2d(torch.ones(1, 1, 2, 2), 2); print('ran')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {ENVIRONMENT_VARIABLE: value, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (outcome in done.stdout) if outcome == "ran" else (outcome in done.stderr)


def test_triton_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert triton_backend.unavailable() == "torch finds no CUDA or ROCm device"
    monkeypatch.setattr(triton_backend, "find_spec", lambda name: None)
    assert "Triton is not installed" in str(triton_backend.unavailable())
