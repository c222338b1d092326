"""Models that are packaged with their configuration, as timm and the Hub keep them, and as poolswap exports them."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from poolswap.checkpoint import load_checkpoint, save_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.export import export_model
from poolswap.load import load_model
from poolswap.models import package
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

SIZE = (3, 64, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(7)
    model = timm.create_model("resnet18d", num_classes=5, stem_width=16, in_chans=1).eval()
    path = tmp_path_factory.mktemp("packaged")
    model.pretrained_cfg["input_size"] = (1, 64, 64)
    save_for_hf(model, path, model_args={"stem_width": 16, "in_chans": 1}, safe_serialization=True)
    return model, path


@pytest.mark.parametrize("form", ["local-dir:{}", "{}"])
def test_a_folder_gives_its_architecture_and_with_pretrained_its_weights(folder, form):
    stock, path = folder
    reference = form.format(path)
    model, spec = load_model(reference, weights="pretrained")
    x = torch.randn(1, 1, 64, 64)
    assert torch.equal(model(x), stock(x))
    assert (spec.reference, spec.num_classes, spec.in_chans, spec.model_args) == (
        "timm:resnet18d",
        5,
        1,
        {"stem_width": 16, "global_pool": "avg"},
    )
    assert spec.input_size == (1, 64, 64)
    assert spec.weights.origin == f"local-dir:{path}"
    random, spec = load_model(reference)
    assert spec.weights.untrained
    assert not torch.equal(random(x), stock(x))


def test_its_checkpoint_needs_neither_the_folder_nor_the_network(folder, tmp_path, monkeypatch):
    _, path = folder
    model, spec = load_model(path, weights="pretrained")
    plan = make_plan(find_pools(model, spec.input_size))
    swap_pools(model, plan)
    save_checkpoint(model, tmp_path / "net.safetensors", spec=spec, plan=plan)
    monkeypatch.setattr(package, "load_model_config_from_path", lambda path: pytest.fail("the folder was read"))
    again, _ = load_checkpoint(tmp_path / "net.safetensors")
    x = torch.randn(1, 1, 64, 64)
    assert torch.equal(again(x), model(x))


def test_a_new_classifier_is_said(folder):
    _, path = folder
    model, spec = load_model(path, weights="pretrained", num_classes=7)
    assert model.num_classes == spec.num_classes == 7
    assert "the classifier is new" in spec.note


def test_poolswaps_own_folder_is_its_checkpoint(tmp_path):
    model, spec = load_model("timm:resnet18d", num_classes=5, input_size=SIZE)
    plan = make_plan(find_pools(model, SIZE), input_size=SIZE)
    swap_pools(model, plan)
    manifest = save_checkpoint(model, tmp_path / "net.safetensors", spec=spec, plan=plan)
    export_model(model, manifest, tmp_path / "folder", to="timm-folder")
    again, _ = load_model(tmp_path / "folder")
    x = torch.randn(1, *SIZE)
    assert torch.equal(again(x), model(x))
    assert torch.equal(load_model(f"local-dir:{tmp_path / 'folder'}")[0](x), model(x))


def test_inspect_takes_a_folder(folder, capsys):
    assert main(["inspect", str(folder[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "timm:resnet18d"


def test_a_folder_that_is_none_of_timms_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="has no configuration"):
        load_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ResNetForImageClassification"]}))
    with pytest.raises(InputError, match="not one of a timm model") as error:
        load_model(tmp_path)
    assert "net.py:factory" in error.value.hint


def test_a_name_on_the_hub_is_read_from_it(monkeypatch, folder):
    _, path = folder
    asked = []

    def config(name):
        asked.append(name)
        return package.load_model_config_from_path(path)

    monkeypatch.setattr(package, "load_model_config_from_hf", config)
    model, spec = load_model("hf-hub:someone/resnet")
    assert asked == ["someone/resnet"]
    assert (spec.reference, model.num_classes) == ("timm:resnet18d", 5)


def test_the_hub_out_of_reach_is_one_clear_error(monkeypatch):
    def offline(name):
        raise OSError("offline")

    monkeypatch.setattr(package, "load_model_config_from_hf", offline)
    with pytest.raises(InputError, match="no configuration that can be read: offline") as error:
        load_model("hf-hub:someone/resnet")
    assert "go online once" in error.value.hint
