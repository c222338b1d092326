"""Data that cannot be used is one line that says what is wrong, and one that says what to do."""

import sys

import pytest
import torch
from adapt.small import SIZE, digits, net
from PIL import Image

from poolswap.adapt import Recipe, evaluate, finetune, load_data, loaders
from poolswap.cli.app import main
from poolswap.errors import InputError


def folder(root, classes=("cat", "dog"), images=4):
    """Noise in train/CLASS/ and val/CLASS/."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = torch.randint(0, 256, (20, 24, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / split / name / f"{number}.jpg")
    return root


def test_a_folder_of_images_is_read_with_the_models_own_transforms(tmp_path):
    model, spec, _ = net()
    data = load_data(str(folder(tmp_path)), input_size=spec.input_size, model=model)
    assert (data.num_classes, data.labels) == (2, ("cat", "dog"))
    train, val = loaders(data, 4)
    images, targets = next(iter(val))
    assert images.shape == (4, *SIZE)
    assert targets.tolist() == [0, 0, 0, 0]
    assert sorted(torch.cat([targets for _, targets in train]).tolist()) == [0] * 4 + [1] * 4


def test_epochs_differ_and_workers_do_not(tmp_path):
    """Order and random crops follow from the seed and the epoch, not from who reads."""
    data = load_data(str(folder(tmp_path)), input_size=SIZE)
    alone, helped, again = (loaders(data, 4, workers, seed)[0] for workers, seed in ((0, 3), (2, 3), (0, 3)))
    first = torch.cat([images for images, _ in alone.batches(0)])
    assert torch.equal(first, torch.cat([images for images, _ in helped.batches(0)]))
    assert torch.equal(first[4:], torch.cat([images for images, _ in again.batches(0, start=1)]))
    assert not torch.equal(first, torch.cat([images for images, _ in alone.batches(1)]))


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (lambda root: [p.unlink() for p in root.glob("*/*/*")], "there is no image in", "train/CLASS/"),
        (
            lambda root: [(root / s / "dog").rename(root / f"{s}-dog") for s in ("train", "val")],
            "one class only: cat",
            "one folder",
        ),
        (lambda root: (root / "val/dog").rename(root / "val/cow"), "different classes: cow, dog", "same class folders"),
        (lambda root: (root / "val").rename(root / "elsewhere"), "has no folder val or validation", "val/CLASS/"),
    ],
    ids=["no image", "one class", "other classes", "no val"],
)
def test_a_folder_that_is_not_one(tmp_path, spoil, message, hint):
    spoil(folder(tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        load_data(str(tmp_path), input_size=SIZE)
    assert hint in caught.value.hint


def test_an_empty_folder_and_no_folder(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        load_data(str(tmp_path))
    with pytest.raises(InputError, match="there is no data"):
        load_data(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="there is no data 'digit'") as caught:
        load_data("digit")
    assert caught.value.hint == "did you mean digits?"
    with pytest.raises(InputError, match="cannot be read"):
        load_data("torch/nonsense", root=tmp_path)


@pytest.mark.parametrize("how", ["truncated", "not an image", "unreadable"])
def test_a_bad_image_is_fatal_or_left_out_as_one_says(tmp_path, how):
    bad = folder(tmp_path) / "val/dog/2.jpg"
    if how == "unreadable":  # a link to nothing: permissions do not stop the superuser
        bad.unlink()
        bad.symlink_to(tmp_path / "gone.jpg")
    else:
        bad.write_bytes(bad.read_bytes()[:200] if how == "truncated" else b"hello")
    data = load_data(str(tmp_path), input_size=SIZE)
    with pytest.raises(InputError, match=r"an image cannot be read: .*2\.jpg") as caught:
        list(loaders(data, 4)[1])
    assert "on_bad_image='skip'" in caught.value.hint
    model, _, _ = net()
    val = loaders(data, 4, on_bad_image="skip")[1]
    val.num_classes = 10
    found = evaluate(model, val)
    assert (found.images, found.bad_images) == (7, 1)
    assert "2.jpg" in val.bad[0]


def test_a_wrong_number_of_classes_ends_before_the_first_update(tmp_path):
    model, spec, plan = net()
    data = load_data(str(folder(tmp_path)), input_size=SIZE)
    with pytest.raises(InputError, match="the model has 10 classes, the data 2") as caught:
        finetune(model, data, Recipe(batch_size=4), tmp_path / "out", spec=spec, plan=plan)
    assert "num_classes=2" in caught.value.hint


def test_a_batch_larger_than_the_data(tmp_path):
    with pytest.raises(InputError, match="a batch of 200 is more than the 96 training images"):
        loaders(digits(), 200)


@pytest.mark.parametrize(
    ("data", "needs"),
    [
        ("hfds/beans", "hfds/beans needs the package datasets"),
        ("wds/a-{0..1}.tar", "needs the package webdataset"),
        ("tfds/mnist", "needs the package tensorflow_datasets"),
        ("digits", "scikit-learn, which brings the digits, is not installed"),
        ("photographs", "scikit-image, which brings photographs, is not installed"),
        ("nowhere", "there is no data 'nowhere'"),
    ],
)
@pytest.mark.parametrize("command", ["finetune", "evaluate", "convert --finetune"])
def test_data_that_cannot_be_had_is_known_before_the_model_is_built(
    command, data, needs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for package in ("datasets", "webdataset", "tensorflow_datasets", "sklearn", "skimage"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("poolswap.load.create_model", lambda *_, **__: pytest.fail("the model was built"))
    name, *options = command.split()
    assert main([name, "test_resnet", "--data", data, *options]) == 2
    assert needs in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("accelerate", "accelerate")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, package, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    command = ["finetune", "test_resnet", "--data", "digits", "--num-classes", "10", "--input-size", "3,16,16"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{package}, which" in said
    assert "pip install" in said
