"""Which images belong together, as the data, a folder, a column or a pattern says it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from poolswap.adapt import evaluate, image_groups, load_data, loaders
from poolswap.errors import InputError


@pytest.fixture
def data(tmp_path):
    """Two patients of two classes each, three pictures each; the first validation picture cannot be read."""
    for split in ("train", "val"):
        for patient in ("ann", "bob"):
            for kind in ("cat", "dog"):
                folder = tmp_path / split / patient / kind
                folder.mkdir(parents=True)
                for n in range(3):
                    Image.fromarray(np.full((4, 4, 3), 40 * n, np.uint8)).save(folder / f"{patient}-{kind}-{n}.png")
    (tmp_path / "val/ann/cat/ann-cat-0.png").write_bytes(b"no picture")
    return load_data(str(tmp_path), input_size=(3, 4, 4))


@pytest.mark.parametrize("group", ["parent", r"(ann|bob)/", r"^ann|^bob", r"([a-z]+)-\w+-\d"])
def test_folders_and_patterns(data, group):
    names = data.val.filenames()
    assert image_groups(data.val, group) == tuple(name[:3] for name in names)
    assert len(names) == 12


def test_images_that_cannot_be_read_keep_their_places(data):
    _, images = loaders(data, 5, on_bad_image="skip")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    assert evaluate(model, images).images == 11
    assert images.unread == [0]
    assert "ann-cat-0.png" in images.bad[0]


def test_what_the_data_brings_is_taken_and_what_it_lacks_is_said(data, tmp_path):
    assert image_groups(data.val) is None
    plain = TensorDataset(torch.zeros(3, 1))
    plain.groups = ["a", "a", "b"]
    assert image_groups(plain) == ("a", "a", "b")
    plain.groups = ["a"]
    with pytest.raises(InputError, match="1 groups for 3 images"):
        image_groups(plain)
    for asked, said in {"(": "regular expression", "x+": "finds nothing", "column:who": "no columns"}.items():
        with pytest.raises(InputError, match=said):
            image_groups(data.val, asked)
    with pytest.raises(InputError, match="no names") as caught:
        image_groups(plain, "parent")
    assert caught.value.hint == "leave out group=: this data brings its own groups"  # as photographs bring their blocks


def test_a_folder_of_classes_has_no_parents(tmp_path):
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / kind / "0.png")
    with pytest.raises(InputError, match="no folder above that of its class"):
        image_groups(load_data(str(tmp_path), input_size=(3, 4, 4)).val, "parent")


def test_columns():
    class Table:
        column_names = ("image", "who")

        def __getitem__(self, name):
            return [3, 3, 4]

    plain = TensorDataset(torch.zeros(3, 1))
    plain.reader = type("Reader", (), {"dataset": Table()})()
    assert image_groups(plain, "column:who") == ("3", "3", "4")
    with pytest.raises(InputError, match="no column 'whom'"):
        image_groups(plain, "column:whom")
