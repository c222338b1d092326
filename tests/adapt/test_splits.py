"""Training, validation and test images are three, of every kind of data; a changed image makes another digest."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Subset

from poolswap.adapt import content_digest, load_data, make_loader
from poolswap.cli.app import main
from poolswap.errors import InputError

SIZE = (3, 8, 8)


@pytest.fixture
def folder(tmp_path):
    """Two classes of three pictures in train/, val/ and test/."""
    for n, split in enumerate(("train", "val", "test")):
        for kind in ("cat", "dog"):
            (tmp_path / split / kind).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((9, 9, 3), 60 * n + i, np.uint8)).save(tmp_path / split / kind / f"{i}.png")
    return tmp_path


def load(folder, **options):
    return load_data(str(folder), input_size=SIZE, **options)


def test_no_digit_is_in_two_of_them():
    pytest.importorskip("sklearn")
    data = load_data("digits", input_size=(1, 8, 8))
    parts = [data.train, data.val, data.test]
    assert [len(part) for part in parts] == [1077, 360, 360]
    rows = [{(bytes(p.numpy().tobytes()), int(t)) for p, t in zip(q.pixels, q.targets, strict=True)} for q in parts]
    assert not (rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2])


def test_only_what_is_asked_for_is_needed(folder):
    (folder / "train").rename(folder / "elsewhere")
    data = load(folder, splits=["test"])
    assert len(data.test) == 6
    images, _ = next(iter(make_loader(data, "test", 6)))
    assert float(images.mean()) > 0  # brighter than the mean: of test/, not of val/
    with pytest.raises(InputError, match="has no train images here"):
        make_loader(data, "plain")


def test_test_images_are_not_taken_for_validation(folder):
    (folder / "val").rename(folder / "elsewhere")
    with pytest.raises(InputError, match="no folder val") as caught:
        load(folder)
    assert "split='test'" in caught.value.hint
    with pytest.raises(InputError, match="no folder test"):
        load_data(str(folder / "elsewhere"), splits=["test"])


def test_plain_images_are_not_augmented(folder):
    data = load(folder, transform={"hflip": 1.0, "color_jitter": 0.4})
    (one,), (other,) = ([images for images, _ in make_loader(data, "plain", 6, seed=seed)] for seed in (0, 1))
    assert sorted(one[:, 0].flatten(1).std(1).tolist()) == pytest.approx(
        [0.0] * 6, abs=1e-4
    )  # of one colour each, as drawn
    assert sorted(one.sum((1, 2, 3)).tolist()) == pytest.approx(sorted(other.sum((1, 2, 3)).tolist()))


def test_transforms_reach_the_images_and_wrong_ones_are_named(folder):
    erased = load(folder, transform={"re_prob": 1.0, "re_mode": "pixel", "color_jitter": 0.0})
    ((images, _),) = make_loader(erased, "train", 6)
    assert max(image[0].std() for image in images) > 0.2
    with pytest.raises(InputError, match="no transform 'hflop'") as caught:
        load(folder, transform={"hflop": 1})
    assert caught.value.hint == "did you mean hflip?"
    with pytest.raises(InputError, match="do not fit"):
        load(folder, transform={"auto_augment": "nonsense"})


def test_a_digest_is_of_names_sizes_targets_and_bytes(folder, tmp_path_factory):
    before = content_digest(load(folder).val)
    assert content_digest(load(folder).val) == before
    seen = {before}

    def changes(what):
        what()
        found = content_digest(load(folder).val)
        assert found not in seen
        seen.add(found)

    path = folder / "val/cat/0.png"
    same = path.read_bytes()
    changes(lambda: path.write_bytes(same[:-1] + b"x"))
    changes(lambda: path.rename(folder / "val/dog/9.png"))
    changes((folder / "val/dog/9.png").unlink)
    copy = tmp_path_factory.mktemp("copy")
    os.system(f"cp -r {folder}/* {copy}")
    assert content_digest(load(copy).val) == content_digest(load(folder).val)  # the place does not matter
    data = load(folder).val
    assert content_digest(Subset(data, [0, 1])) != content_digest(Subset(data, [1, 0]))


def test_the_command_judges_on_test_images(folder, capsys):
    model = ["evaluate", "test_resnet", "--num-classes", "2", "--input-size", "3,32,32", "--json", "-q"]
    for split, images in {"val": 6, "test": 5}.items():
        (folder / "test/cat/0.png").unlink(missing_ok=True)
        assert main([*model, "--data", str(folder), "--split", split]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["split"], said["images"]) == (split, images)
    assert main([*model, "--data", str(folder), "--transform", "hflop=1"]) == 2
    assert "no transform 'hflop'" in capsys.readouterr().err
