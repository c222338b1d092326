"""State dicts come from files without running what is in them, and fit a model exactly or not at all."""

import argparse
import os
import pickle
import random
import warnings
from contextlib import suppress
from hashlib import sha256

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from poolswap.errors import InputError
from poolswap.models.weights import load_into, read_state_dict, sha256_of


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_every_kind_of_file_gives_the_tensors_that_were_saved(tmp_path, name):
    state = net().state_dict()
    save = save_file if name.endswith(".safetensors") else torch.save
    save(state, tmp_path / name)
    found = read_state_dict(tmp_path / name)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_files_of_torch_before_1_6_are_read(tmp_path):
    torch.save(net().state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert_same(read_state_dict(tmp_path / "w.pt"), net().state_dict())


WRAPPERS = ["state_dict", "model", "model_state_dict", "state_dict_ema", "ema", "model_ema"]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_and_prefixes_come_off(tmp_path, wrapper, prefix):
    state = {prefix + key: value for key, value in net().state_dict().items()}
    torch.save({wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    assert_same(read_state_dict(tmp_path / "w.pt"), net().state_dict())


def test_a_compiled_child_loses_its_prefix_too(tmp_path):
    torch.save({"a._orig_mod.weight": torch.ones(1), "b.weight": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["a.weight", "b.weight"]


def test_a_child_that_is_called_module_keeps_its_name(tmp_path):
    torch.save({"module.weight": torch.ones(1), "head.weight": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_state_dict(tmp_path / "w.pt")) == ["module.weight", "head.weight"]


@pytest.mark.parametrize(("plain", "ema"), [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("model", "ema")])
def test_the_average_is_taken_where_a_checkpoint_has_both(tmp_path, plain, ema):
    """As timm's own loading does; torchvision's scripts save an AveragedModel, with a counter beside the weights."""
    average = torch.optim.swa_utils.AveragedModel(net())
    with torch.no_grad():
        average.module[0].weight.fill_(7)
    torch.save({plain: net().state_dict(), ema: average.state_dict()}, tmp_path / "w.pt")
    assert_same(read_state_dict(tmp_path / "w.pt"), average.module.state_dict())


def test_the_arguments_that_training_scripts_save_beside_the_weights_are_no_obstacle(tmp_path):
    args = argparse.Namespace(lr=0.1, data=argparse.Namespace(root="x"))
    torch.save({"state_dict": net().state_dict(), "args": args}, tmp_path / "w.pt")
    assert_same(read_state_dict(tmp_path / "w.pt"), net().state_dict())
    with pytest.raises(pickle.UnpicklingError):  # allowed while poolswap reads, not ever after
        torch.load(tmp_path / "w.pt", weights_only=True)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt", "w.safetensors"])
def test_code_in_a_file_never_runs(tmp_path, writer, name):
    writer({"state_dict": net().state_dict(), "x": Hostile(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(InputError, match=r"could run code|cannot be read"):
        read_state_dict(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_is_refused_by_the_name_of_its_class(tmp_path):
    torch.save(net(), tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"holds torch\.nn\.modules\.[\w.]+, and loading that could run code"
    ) as raised:
        read_state_dict(tmp_path / "w.pt")
    assert "model.state_dict()" in raised.value.hint


def script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("<html>404</html>"), "cannot be read"),
        (lambda path: path.write_bytes(random.Random(0).randbytes(4096)), "cannot be read"),
        (script, "cannot be read.*TorchScript"),
        (lambda path: torch.save([1, 2], path), "holds a list"),
        (lambda path: torch.save({}, path), "holds no state dict, but nothing"),
        (
            lambda path: torch.save({"net": {"w": torch.ones(1)}, "epoch": 1}, path),
            "holds no state dict, but net, epoch",
        ),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, write, message):
    write(tmp_path / "w.pt")
    with pytest.raises(InputError, match=message) as raised:
        read_state_dict(tmp_path / "w.pt")
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(("name", "message"), [("none.pt", "there is no file"), ("w.txt", "not a weights file")])
def test_missing_and_misnamed_files_are_named(tmp_path, name, message):
    (tmp_path / "w.txt").touch()
    with pytest.raises(InputError, match=message):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("name", ["w.pt", "old.pt", "w.safetensors"])
@given(data=st.data())
@settings(max_examples=40)
def test_damage_is_an_input_error_or_no_damage_at_all(tmp_path_factory, name, data):
    """A cut file is always refused. A flipped bit may lie in a tensor, where only a digest can see it."""
    path = tmp_path_factory.mktemp("damage") / name
    state = {"w": torch.arange(4.0), "b": torch.arange(3)}
    if name == "w.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "w.pt")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
        with pytest.raises(InputError):
            read_state_dict(path)
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[at + 1 :])
        with suppress(InputError):
            read_state_dict(path)


def test_loading_gives_the_model_every_tensor():
    model, state = net(), {key: torch.full_like(value, 3) for key, value in net().state_dict().items()}
    load_into(model, state, "w.pt")
    assert_same(model.state_dict(), state)


def test_every_kind_of_mismatch_is_listed_with_its_first_few():
    state = net().state_dict()
    state["2.weight"] = torch.ones(5, 3)
    state |= {f"extra.{i}": torch.ones(1) for i in range(5)}
    del state["0.weight"], state["0.bias"]
    with pytest.raises(InputError) as raised:
        load_into(net(), state, "w.pt")
    assert raised.value.message == (
        "w.pt does not fit the model (missing: 0.weight, 0.bias; "
        "unexpected: extra.0, extra.1, extra.2 and 2 more; shape: 2.weight 5x3 for 2x3)"
    )
    assert "num_classes=" in raised.value.hint


@pytest.mark.parametrize("change", [lambda s: s.pop("2.bias"), lambda s: s.update(extra=torch.ones(1))])
def test_one_key_too_few_or_too_many_is_an_error(change):
    state = net().state_dict()
    change(state)
    with pytest.raises(InputError, match=r"missing: 2\.bias|unexpected: extra"):
        load_into(net(), state, "w.pt")


def test_tensors_that_cannot_be_copied_are_an_input_error():
    state = net().state_dict()
    state["2.bias"] = state["2.bias"].to_sparse()
    with pytest.raises(InputError, match=r"w\.pt does not fit the model: .*2\.bias"):
        load_into(net(), state, "w.pt")


def test_batch_norms_saved_before_they_counted_their_batches_load():
    """torch itself fills in the counter; its absence is no mismatch."""
    state = net().state_dict()
    del state["1.num_batches_tracked"]
    load_into(net(), state, "w.pt")


def test_the_digest_is_of_the_bytes(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    assert sha256_of(tmp_path / "w.pt") == sha256(b"weights").hexdigest()
