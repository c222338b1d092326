"""The photographs are the same on every machine, their parts share no pixel, and nothing is fetched for them."""

import socket

import pytest
import torch
from PIL import Image

from poolswap.adapt import content_digest, load_data, photographs
from poolswap.adapt.photographs import CLASSES, load_photographs
from poolswap.cli.app import main
from poolswap.errors import InputError, MissingExtraError

pytest.importorskip("sklearn", reason="two photographs come with scikit-learn")
pytest.importorskip("skimage", reason="the others come with scikit-image")

# Of the patches that the docs' numbers are of. JPEGs may decode to other pixels in another Pillow.
DIGEST = "061b8c0a7c07d481bf540a174148c326a3dbba9c59ea6da9be071c051bbc0446"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("POOLSWAP_CACHE", str(cache))


def parts(size=(3, 64, 64)):
    return dict(zip(("train", "val", "test"), load_photographs(size), strict=True))


def test_they_are_these_patches():
    found = parts()
    assert {name: len(part) for name, part in found.items()} == {"train": 2720, "val": 1020, "test": 1020}
    for part in found.values():
        assert torch.bincount(part.targets).tolist() == [len(part) // len(CLASSES)] * len(CLASSES)
    image, target = found["val"][0]
    assert (image.shape, image.dtype, int(target)) == ((3, 64, 64), torch.float32, 0)
    assert -1 <= image.min() < image.max() <= 1
    assert content_digest(found["test"]) == DIGEST


def test_blocks_belong_to_one_part_and_lie_apart():
    """With the gap between them: no two patches of different parts share a pixel, or neighbour one."""
    found = {name: set(part.groups) for name, part in parts().items()}
    corners = {}
    for name, groups in found.items():
        for group in groups:
            stem, place = group.split()
            corners.setdefault(stem, []).append((name, *map(int, place.split(","))))
    assert set(corners) == set(CLASSES)
    for blocks in corners.values():
        assert {name for name, *_ in blocks} == set(found)
        for one, left, top in blocks:
            for other, x, y in blocks:
                assert (one, left, top) == (other, x, y) or max(abs(left - x), abs(top - y)) >= 80


def test_blocks_are_the_groups_of_an_interval():
    val = load_data("photographs", input_size=(3, 64, 64)).val
    assert (len(val.groups), len(set(val.groups))) == (1020, 138)


def test_a_patch_lies_in_its_block(monkeypatch):
    """Of a photograph that is black outside one block, a patch of that block has no black."""
    whole = Image.new("RGB", (300, 300))
    whole.paste((200, 200, 200), (80, 160, 80 + 72, 160 + 72))
    draw = photographs.Random("x")
    for _ in range(50):
        low, high = photographs._patch(whole, 80, 160, draw).convert("L").getextrema()
        assert low == pytest.approx(high, abs=1)
        assert low > 100


def test_the_cache_is_used_and_mended(cache, monkeypatch):
    parts()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    built = []
    monkeypatch.setattr(photographs, "_build", lambda sources: built.append(1) or pytest.fail("built again"))
    assert content_digest(parts()["test"]) == DIGEST
    small = {name: photographs._Part(torch.zeros(1, 3, 64, 64).byte(), torch.zeros(1), ["a"]) for name in "abc"}
    monkeypatch.setattr(photographs, "_build", lambda sources: built.append(1) or small)
    for damaged in (whole[:1000], whole[:-5] + b"xxxxx", b""):
        path.write_bytes(damaged)
        assert len(load_photographs((3, 64, 64))[0]) == 1
    assert len(built) == 3
    path.write_bytes(whole)
    monkeypatch.setenv("POOLSWAP_CACHE", "/proc/no/such/place")  # cannot be written: built, and no more
    load_photographs((3, 64, 64))
    assert len(built) == 4


def test_nothing_is_fetched(monkeypatch, cache):
    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("the network"))
    monkeypatch.setattr(photographs, "_read", lambda path: None)
    monkeypatch.setattr(photographs, "_PATCHES", {"train": 2, "val": 1, "test": 1})
    monkeypatch.setattr(photographs, "_write", lambda parts, path: None)
    assert len(load_photographs((3, 64, 64))[0]) == 2 * len(CLASSES)


@pytest.mark.parametrize(("size", "shape"), [((1, 64, 64), (1, 64, 64)), ((3, 24, 40), (3, 24, 40))])
def test_they_take_the_size_of_the_model(size, shape):
    assert parts(size)["val"][3][0].shape == shape


def test_what_they_cannot_be_is_said(monkeypatch, capsys):
    with pytest.raises(InputError, match="pictures of 3 channels"):
        load_data("photographs", input_size=(4, 64, 64))
    with pytest.raises(InputError, match="not transformed"):
        load_data("photographs", transform={"hflip": 0.0})
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="scikit-image") as caught:
        load_data("photographs")
    assert "photographs" in caught.value.hint or "scikit-image" in caught.value.hint
    assert main(["evaluate", "test_resnet", "--data", "photographs", "--input-size", "3,32,32"]) == 2
    assert "scikit-image" in capsys.readouterr().err
