"""A model that takes other things than one batch of images is saved, verified and found again by its example."""

from collections import UserDict

import pytest
import torch
from adapt.small import digits
from torch import nn
from torch.nn import functional as F

from poolswap.adapt import Recipe, finetune
from poolswap.checkpoint import save_checkpoint, verify_checkpoint
from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.example import KeptExample
from poolswap.manifest import read_manifest
from poolswap.models.load import create_model
from poolswap.surgery.drift import measure_drift
from poolswap.surgery.plan import make_plan
from poolswap.surgery.sites import find_pools
from poolswap.surgery.swap import swap_pools

NETS = """
import torch
from torch import nn

class Base(nn.Module):
    input_size = (3, 16, 16)
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.embed = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Embedding(9, 4)
    def look(self, image):
        return self.pool(input=self.conv(image)).mean((2, 3))

class Two(Base):
    def forward(self, image, ids):
        return self.look(image) + self.embed(ids).mean(1)

class Mapped(Base):
    def forward(self, batch):
        return self.look(batch["image"]) + self.embed(batch["ids"]).mean(1)

class Words(nn.Module):
    input_size = (1, 400)
    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv1d(1, 4, 3), nn.MaxPool1d(4)
    def forward(self, x):
        return self.pool(self.conv(x)).mean(-1)
"""

TRAINABLE = """
import torch
from torch import nn

class Scaled(nn.Module):
    input_size = (3, 12, 12)
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2)
        self.fc = nn.Linear(4, num_classes)
    def forward(self, pixel_values, scale=None):
        x = pixel_values if scale is None else pixel_values * scale
        return self.fc(self.pool(input=self.norm(self.conv(x))).mean((2, 3)))

example = {"pixel_values": torch.randn(2, 3, 12, 12), "scale": torch.tensor([2.0])}
"""

IMAGE, IDS = torch.randn(2, 3, 16, 16) + 3, torch.arange(6).view(2, 3)
EXAMPLES = {
    "two tensors": ("Two", [IMAGE, IDS]),
    "tuple": ("Two", (IMAGE, IDS)),
    "keywords": ("Two", {"ids": IDS, "image": IMAGE}),
    "any mapping": ("Two", UserDict(image=IMAGE, ids=IDS)),
    "one dict": ("Mapped", [{"image": IMAGE, "ids": IDS}]),
    "half precision": ("Two", [IMAGE.bfloat16(), IDS]),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_checkpoint_with_an_example_verifies(name):
    net, example = EXAMPLES[name]
    model, spec = create_model(f"nets.py:{net}")
    plan = make_plan(find_pools(model, spec.input_size, example=example))
    assert measure_drift(model, plan, spec.input_size, example=example).output > 0
    swap_pools(model, plan, example=example)
    save_checkpoint(model, "net.safetensors", spec=spec, plan=plan, example=example)
    found = verify_checkpoint("net.safetensors", trust_code=True)
    assert [(check.ok, check.detail) for check in found.checks if not check.ok] == []


def test_integers_are_kept_and_images_are_noise_like_them():
    (image, ids), again = (KeptExample.of([IMAGE, IDS]).make(seed) for seed in (0, 0))
    assert torch.equal(ids, IDS)
    assert torch.equal(image, again[0])
    assert not torch.equal(image, IMAGE)
    assert image.mean() == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(0, 4),
        torch.tensor(True),
        torch.full((2000,), -torch.inf),
        torch.arange(5000, dtype=torch.int16),
    ],
)
def test_small_and_exact_values_come_back(value):
    kept = KeptExample.model_validate_json(KeptExample.of(value).model_dump_json())
    torch.testing.assert_close(kept.make(0), value, rtol=0, atol=0)


def test_plain_data_comes_back():
    value = {"a": [1, 2.5, None, "x", (True,)]}
    assert KeptExample.model_validate_json(KeptExample.of(value).model_dump_json()).make(0) == value


def test_what_cannot_be_kept_is_said_before_anything_is_written(folder):
    with pytest.raises(InputError, match="cannot keep a object of the example"):
        KeptExample.of([object()])


@pytest.mark.parametrize("data", ["AAAA", "!", None])
def test_damaged_examples_are_input_errors(data):
    kept = KeptExample.of(torch.arange(4))
    bad = kept.model_copy(update={"tensor": kept.tensor.model_copy(update={"data": data or "eJwDAAAAAAE="})})
    with pytest.raises(InputError, match="example"):
        bad.make(0)


def test_signals_are_converted_and_verified_on_the_command_line(capsys):
    assert main(["convert", "nets.py:Words", "--input-size", "1,4000", "--output", "words.safetensors"]) == 0
    assert read_manifest("words.safetensors").model.input_size == (1, 4000)
    assert main(["verify", "words.safetensors", "--trust-code"]) == 0
    capsys.readouterr()


def test_a_keyword_call_has_a_drift():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return F.relu(self.pool(input=x))

    model = Keyword()
    drift = measure_drift(model, make_plan(find_pools(model, (3, 8, 8))), (3, 8, 8))
    assert drift.sites[0].local > 0


def test_a_trainings_checkpoints_keep_the_example(folder):
    """A verification afterwards would otherwise call the model with noise of another kind, and fail."""
    (folder / "nets.py").write_text(TRAINABLE)
    model, spec = create_model("nets.py:Scaled")
    plan = make_plan(find_pools(model, spec.input_size))
    swap_pools(model, plan)
    kept = KeptExample.of({"pixel_values": torch.randn(2, 3, 12, 12), "scale": torch.tensor([2.0])})
    recipe = Recipe(epochs=1, batch_size=32)
    made = finetune(model, digits(size=spec.input_size), recipe, "out", spec=spec, plan=plan, example=kept)
    for path in (made.best_path, made.last_path):
        assert read_manifest(path).example == kept
        assert verify_checkpoint(path, trust_code=True).ok


@pytest.mark.slow
def test_every_command_that_trains_keeps_the_example(folder):
    (folder / "nets.py").write_text(TRAINABLE)
    (folder / "recipe.yaml").write_text("epochs: 1")
    command = ["convert", "nets.py:Scaled", "--example", "nets.py:example", "-o", "c.safetensors"]
    assert main([*command, "--recalibrate", "--finetune", "--data", "digits", "--recipe", "recipe.yaml"]) == 0
    kept = read_manifest("c.safetensors").example
    assert kept is not None
    data = ["--data", "digits", "--trust-code"]
    assert main(["recalibrate", "c.safetensors", *data, "--batches", "2", "-o", "r.safetensors"]) == 0
    assert main(["finetune", "c.safetensors", *data, "--epochs", "1", "-o", "trained"]) == 0
    for made in ("c-training/last.safetensors", "r.safetensors", "trained/best.safetensors"):
        assert read_manifest(made).example == kept
        assert verify_checkpoint(made, trust_code=True).ok
