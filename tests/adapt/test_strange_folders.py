"""Folders as people have them: every mode of image, names of every script, links, levels, classes without images."""

import numpy as np
import pytest
import torch
from PIL import Image

from poolswap.adapt import load_data, make_loader
from poolswap.errors import InputError

SIZE = (3, 8, 8)
GREY = np.tile(np.linspace(0, 1, 8), (8, 1))  # from black on the left to white on the right


def save(path, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    eight = Image.fromarray((GREY * 255).round().astype(np.uint8))
    if mode == "16":
        Image.fromarray((GREY * 65535).round().astype(np.uint16)).save(path)
    elif mode == "F":
        Image.fromarray(GREY.astype(np.float32)).save(path)
    elif mode == "turned":  # stored upside down and mirrored, and said to be so
        exif = Image.Exif()
        exif[0x0112] = 3
        eight.transpose(Image.Transpose.ROTATE_180).save(path, exif=exif)
    else:
        eight.convert(mode).save(path)


def images(root, part="val", **options):
    data = load_data(str(root), input_size=SIZE, transform={"crop_pct": 1.0}, **options)
    ((found, _),) = make_loader(data, part, 64, on_bad_image="skip")
    return data, found


def test_images_of_every_mode_are_the_same_picture(tmp_path):
    kinds = {
        "L": "png",
        "RGB": "BMP",
        "RGBA": "png",
        "P": "gif",
        "CMYK": "tif",
        "16": "png",
        "F": "tif",
        "turned": "png",
    }
    for split in ("train", "val"):
        for n, (mode, suffix) in enumerate(kinds.items()):
            save(tmp_path / split / "ab"[n % 2] / f"{mode}.{suffix}", mode)
    data, found = images(tmp_path)
    assert len(found) == len(kinds)
    for image in found[1:]:
        torch.testing.assert_close(image, found[0], atol=0.03, rtol=0)
    assert found[0, 0, 0, 0] < -1.5 < 1.5 < found[0, 0, 0, -1]  # black to white, and not all white
    data = load_data(str(tmp_path), input_size=(1, 8, 8))
    assert next(iter(make_loader(data, "val", 8)))[0].shape == (8, 1, 8, 8)


def test_names_links_and_levels(tmp_path):
    """The last folder is the class; links to files and folders are followed."""
    for split in ("train", "val"):
        save(tmp_path / split / "猫 и кошка" / "é ü.png")
        save(tmp_path / split / "deep" / "er" / "dog's" / "$(x).png")
        save(tmp_path / "elsewhere" / split / "0.png")
        (tmp_path / split / "linked").symlink_to(tmp_path / "elsewhere" / split)
        (tmp_path / split / "linked.png.txt").write_text("no image")
    data, found = images(tmp_path)
    assert sorted(data.labels) == ["dog's", "linked", "猫 и кошка"]
    assert len(found) == 3


def test_a_class_without_images_in_one_split_is_named(tmp_path):
    for split, kinds in {"train": ("cat", "dog", "eel"), "val": ("cat", "dog")}.items():
        for kind in kinds:
            save(tmp_path / split / kind / "0.png")
    (tmp_path / "val/eel").mkdir()
    with pytest.raises(InputError, match="train and val images have different classes: eel"):
        load_data(str(tmp_path), input_size=SIZE)


def test_images_of_no_class_and_links_that_go_in_circles_are_refused(tmp_path):
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            save(tmp_path / split / kind / "0.png")
    (tmp_path / "val/cat/up").symlink_to("..")
    with pytest.raises(InputError, match="are the same folder"):
        load_data(str(tmp_path), input_size=SIZE)
    (tmp_path / "val/cat/up").unlink()
    save(tmp_path / "train/loose.png")
    with pytest.raises(InputError, match="train itself, of no class"):
        load_data(str(tmp_path), input_size=SIZE)


def test_one_image_a_class_is_enough_to_judge_and_too_few_to_train_on(tmp_path):
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            save(tmp_path / split / kind / "0.png")
    data, found = images(tmp_path)
    assert len(found) == 2
    with pytest.raises(InputError, match="a batch of 64 is more than the 2 training images"):
        make_loader(data, "plain", 64)


@pytest.mark.parametrize("how", ["empty", "half", "text", "exif"])
def test_damaged_images_are_left_out_or_named(tmp_path, how):
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            save(tmp_path / split / kind / "0.png")
            save(tmp_path / split / kind / "1.png", "turned")
    path = tmp_path / "val/cat/1.png"
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"hello", "exif": whole[:-30]}[how])
    data, found = images(tmp_path)
    assert len(found) in (3, 4)  # Pillow may still read what lacks its end
    if len(found) == 3:
        with pytest.raises(InputError, match=r"an image cannot be read: .*1\.png"):
            list(make_loader(data, "val", 2))
