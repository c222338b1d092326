"""Without a network a command says so in seconds; what the cache holds loads all the same."""

import socket
import time

import pytest
from huggingface_hub import constants

from poolswap.errors import InputError
from poolswap.load import load_model
from poolswap.models.network import hub_or_cache, reachable


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("poolswap.models.network.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("reference", ["resnet18", "hf-hub:timm/resnet18.a1_in1k"])
def test_pretrained_weights_without_a_network_are_an_error_at_once(no_network, monkeypatch, reference):
    began = time.process_time()
    with pytest.raises(InputError, match=r"huggingface\.co cannot be reached") as caught:
        load_model(reference, weights="pretrained")
    assert time.process_time() - began < 5
    assert "go online once to fill the cache; HF_HUB_OFFLINE=1" in caught.value.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids the network") as caught:
        load_model(reference, weights="pretrained")
    assert "unset HF_HUB_OFFLINE, and go online once" in caught.value.hint


def test_the_hub_is_asked_again_afterwards(no_network):
    before = constants.HF_HUB_OFFLINE
    with hub_or_cache():
        assert constants.HF_HUB_OFFLINE is True
    assert constants.HF_HUB_OFFLINE is before


def test_behind_a_proxy_the_proxy_decides(no_network, monkeypatch):
    monkeypatch.setattr("poolswap.models.network.getproxies", lambda: {"https": "http://proxy:3128"})
    assert reachable("https://huggingface.co")
