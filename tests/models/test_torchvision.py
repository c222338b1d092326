"""A torchvision model is built as its weights say, with nothing fetched and nothing else in the process disturbed."""

from threading import Event, Thread
from unittest import mock

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models._api import WeightsEnum

from poolswap.models.torchvision import build_torchvision, default_weights

# The first of each of torchvision's modules, whose builders share one function, and all of those that write their own.
LISTED = [name for name in torchvision.models.list_models() if not name.startswith("quantized_")]
BY_MODULE = {torchvision.models.get_model_builder(name).__module__: name for name in sorted(LISTED, reverse=True)}
OWN = [name for name in LISTED if torchvision.models.get_model_builder(name).__module__.count(".") > 2]
BUILDERS = [name for name in sorted({*BY_MODULE.values(), *OWN}) if len(torchvision.models.get_model_weights(name))]
COMPUTING = [name for name in BUILDERS if name.startswith("regnet_")]  # while they are built: not on the meta device
DEVICES = {**dict.fromkeys(BUILDERS, "meta"), **dict.fromkeys(COMPUTING, "cpu")}


def as_the_library_builds_it(name, device):
    """The builder's own model for its default weights, with all loading taken away from the whole process."""
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with (
        torch.device(device),
        mock.patch.object(WeightsEnum, "get_state_dict", return_value={}),
        mock.patch.object(nn.Module, "load_state_dict", return_value=None),
    ):
        return torchvision.models.get_model(name, weights="DEFAULT", **extra)


def anatomy(model):
    """What the weights' entry can change: modules and their attributes, tensors, and which of them train."""
    modules = [(path, type(module), module.extra_repr()) for path, module in model.named_modules()]
    tensors = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    flags = {name: value for name, value in vars(model).items() if isinstance(value, (bool, int, float, str))}
    return modules, tensors, {name: p.requires_grad for name, p in model.named_parameters()}, flags


@pytest.mark.parametrize(("name", "device"), DEVICES.items())
def test_a_model_for_weights_that_are_not_fetched_is_the_one_that_would_take_them(name, device):
    with torch.device(device):
        built = build_torchvision(name, {}, weights=default_weights(name))
    assert anatomy(built) == anatomy(as_the_library_builds_it(name, device))


def test_another_thread_loads_its_weights_while_a_model_is_built():
    started, ended, lost = Event(), Event(), []

    def load_again_and_again():
        ones, layer = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}, nn.Linear(1, 1)
        while not ended.is_set():
            nn.init.zeros_(layer.weight)
            layer.load_state_dict(ones)
            lost.append(layer.weight.item() != 1)
            started.set()

    other = Thread(target=load_again_and_again)
    other.start()
    started.wait()
    try:
        build_torchvision("resnet18", {}, weights="ResNet18_Weights.IMAGENET1K_V1")
    finally:
        ended.set()
        other.join()
    assert not any(lost)
