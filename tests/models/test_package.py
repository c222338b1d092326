"""Models that are packaged with their configuration, as timm and the Hub keep them, and as poolswap exports them."""

import json
import re

import pytest
import timm
import torch
import yaml
from timm.models import save_for_hf

from poolswap.checkpoint import load_checkpoint, save_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.export import export_model
from poolswap.export.card import _front
from poolswap.load import load_model
from poolswap.manifest import read_manifest
from poolswap.models import package
from poolswap.models.load import Weights
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
    assert (spec.reference, spec.num_classes, spec.in_chans) == ("timm:resnet18d", 5, 1)
    args = {"stem_width": 16}
    assert spec.model_args in (args, {**args, "global_pool": "avg"})  # older versions of timm leave the second one out
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


@pytest.fixture
def exported(tmp_path):
    """(model, the folder that poolswap exported it to)."""
    model, spec = load_model("timm:test_resnet", num_classes=5, input_size=SIZE)
    plan = make_plan(find_pools(model, SIZE), to="soft:beta=2", input_size=SIZE)
    swap_pools(model, plan)
    recipe = {"data": "digits", "top1": 87.5}
    manifest = save_checkpoint(model, tmp_path / "net.safetensors", spec=spec, plan=plan, recipe=recipe)
    export_model(model, manifest, tmp_path / "folder", to="timm-folder")
    return model, tmp_path / "folder"


def test_poolswaps_own_folder_is_its_checkpoint(exported):
    model, folder = exported
    x = torch.randn(1, *SIZE)
    for reference in (folder, f"local-dir:{folder}"):
        assert torch.equal(load_model(reference)[0](x), model(x))


@pytest.mark.parametrize("pretrained", [True, False])
def test_timm_never_takes_it_for_the_stock_architecture(exported, pretrained):
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{exported[1]}", pretrained=pretrained)


def test_the_hub_gives_back_what_was_uploaded(exported, monkeypatch):
    """An upload copies the folder as it is; the Hub's own client is replaced by one that reads it there."""
    model, folder = exported
    monkeypatch.setattr(package, "hf_hub_download", lambda name, file, revision: str(folder / file))
    again, spec = load_model("hf-hub:somebody/swapped@main")
    x = torch.randn(1, *SIZE)
    assert torch.equal(again(x), model(x))
    assert spec.reference == "timm:test_resnet"


def test_the_card_says_what_is_in_the_folder(exported):
    _, folder = exported
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["library_name"] == "poolswap"
    assert said.keys().isdisjoint({"license", "base_model"}), "random weights are nobody's"
    assert "soft:beta=2.0" in text
    assert "| Accuracy | top-1 87.50% on the validation images of digits |" in text
    assert float(re.search(r"Drift \| ([\d.e-]+):", text)[1]) > 0
    assert "poolswap.load_model(" in text
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "poolswap-test_resnet"
    assert config["pretrained_cfg"].keys().isdisjoint({"tag", "license"})


def test_the_card_of_pretrained_weights_names_their_license_and_base(exported):
    _, folder = exported
    manifest = read_manifest(folder / "model.safetensors")
    weights = Weights(kind="pretrained", origin="timm/test_resnet.r160_in1k")
    spec = manifest.model.model_copy(update={"weights": weights})
    front = _front(manifest.model_copy(update={"model": spec}))
    assert front["base_model"] == "timm/test_resnet.r160_in1k"
    assert front["license"] == timm.get_pretrained_cfg("test_resnet").license


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
    monkeypatch.setattr(package, "hf_hub_download", lambda name, file, revision: str(path / file))
    model, spec = load_model("hf-hub:someone/resnet")
    assert asked == ["someone/resnet"]
    assert (spec.reference, model.num_classes) == ("timm:resnet18d", 5)


def test_the_hub_out_of_reach_is_one_clear_error(monkeypatch):
    def offline(name, file, revision):
        raise OSError("offline")

    monkeypatch.setattr(package, "hf_hub_download", offline)
    with pytest.raises(InputError, match="cannot be read: they cannot be had: offline") as error:
        load_model("hf-hub:someone/unreachable")
    assert "go online once" in error.value.hint
