"""Every kind of file becomes the RGB picture that a person sees, or an error that says what is wrong with it."""

from random import Random

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from poolswap.errors import InputError, MissingExtraError
from poolswap.images import bundled_pictures, picture, read_picture

HEIGHT, WIDTH = 24, 40


def ramp(peak: int, dtype: type = np.uint8) -> np.ndarray:
    return np.linspace(0, peak, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype)


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_sixteen_bits_keep_their_precision(tmp_path):
    levels = ramp(65535, np.uint16)
    pixels = read_picture(saved(tmp_path, Image.fromarray(levels))).pixels
    assert torch.equal(pixels, torch.from_numpy(levels.astype(np.float32) / 65535).expand(3, -1, -1))
    assert len(pixels.unique()) == HEIGHT * WIDTH


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [*((mode, "png") for mode in ("L", "1", "P", "LA", "RGBA")), ("CMYK", "tif"), ("YCbCr", "tif"), ("P", "gif")],
)
def test_every_mode_is_read_as_rgb(mode, suffix, tmp_path):
    if mode == "YCbCr" and int(PIL.__version__.partition(".")[0]) < 13:
        pytest.skip("Pillow before 13 does not read its own TIFF of YCbCr")
    grey = Image.fromarray(np.where(ramp(255) > 128, 255, 0).astype(np.uint8))
    path = saved(tmp_path, grey.convert(mode), f"picture.{suffix}")
    pixels = read_picture(path).pixels
    assert pixels.shape == (3, HEIGHT, WIDTH)
    expected = torch.from_numpy(np.array(grey)).float() / 255
    torch.testing.assert_close(pixels, expected.expand(3, -1, -1), rtol=0, atol=0.02)


def test_what_is_transparent_is_white(tmp_path):
    image = Image.new("RGBA", (WIDTH, HEIGHT), (200, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 20, HEIGHT))
    pixels = read_picture(saved(tmp_path, image)).pixels
    assert torch.equal(pixels[:, :, 20:], torch.ones(3, HEIGHT, 20))
    assert pixels[0, 0, 0] == 200 / 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright(orientation, tmp_path):
    image = Image.new("L", (WIDTH, HEIGHT))
    image.paste(255, (0, 0, 20, 12))  # a quarter at the top left of what was saved
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_picture(saved(tmp_path, image, "photo.jpg", exif=exif, quality=100)).pixels
    assert pixels.shape[1:] == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    row, column = corner[orientation]
    assert pixels[0, row, column] > 0.95
    assert pixels[0, -1 - row, -1 - column] < 0.05


@pytest.mark.parametrize("name", ["huge.jpg", "huge.png", "deep.png"])
def test_a_huge_picture_is_reduced_and_says_so(name, tmp_path):
    image = (
        Image.fromarray(np.full((300, 2000), 40000, np.uint16))
        if name == "deep.png"
        else Image.new("RGB", (2000, 300), "red")
    )
    found = read_picture(saved(tmp_path, image, name), max_side=500)
    assert (found.size, found.original_size) == ((75, 500), (300, 2000))
    assert found.pixels[0].std() < 1e-3


def test_a_picture_of_its_own_size_is_not_reduced(tmp_path):
    assert read_picture(saved(tmp_path, Image.new("L", (WIDTH, HEIGHT)))).original_size is None


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("L", (WIDTH, HEIGHT), level) for level in (255, 0)]
    path = saved(tmp_path, frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert read_picture(path).pixels.min() == 1


def test_what_is_no_picture_is_an_error_with_a_next_step(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    cut = saved(tmp_path, Image.effect_noise((200, 200), 50).convert("RGB"), "cut.png")
    cut.write_bytes(cut.read_bytes()[:2000])
    empty = tmp_path / "empty.png"
    empty.touch()
    small = saved(tmp_path, Image.new("L", (100, 5)), "small.png")
    floating = saved(tmp_path, Image.fromarray(np.full((HEIGHT, WIDTH), 7.5, np.float32)), "floating.tif")
    for path, words in {
        tmp_path / "none.png": "there is no picture",
        tmp_path: "there is no picture",
        text: "not a picture",
        empty: "not a picture",
        cut: "damaged",
        small: "100x5 pixels: too small",
        floating: "values from 7.5 to 7.5",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_picture(path)
        assert caught.value.hint


def test_more_pixels_than_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="too many pixels"):
        read_picture(saved(tmp_path, Image.new("L", (WIDTH, HEIGHT))))


def test_bundled_pictures_are_photographs():
    pictures = bundled_pictures(max_side=64)
    assert [p.name for p in pictures] == ["astronaut", "chelsea", "coffee", "rocket"]
    assert all(max(p.size) == 64 for p in pictures)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="scikit-image") as caught:
        bundled_pictures()
    assert caught.value.hint == "pip install 'pillow>=11' 'scikit-image>=0.26'"


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp"])
def test_a_damaged_file_is_an_error_or_a_picture_and_nothing_else(suffix, tmp_path):
    path = saved(tmp_path, Image.effect_noise((64, 48), 60).convert("RGB"), f"picture.{suffix}")
    sound, random = path.read_bytes(), Random(0)
    outcomes = set()
    for _ in range(40):
        data = bytearray(sound[: random.choice([len(sound), random.randrange(len(sound))])])
        for _ in range(3 if data else 0):
            data[random.randrange(min(len(data), 200))] = random.randrange(256)
        path.write_bytes(data)
        try:
            outcomes.add(read_picture(path).pixels.shape[0])
        except InputError:
            outcomes.add("error")
    assert outcomes <= {3, "error"}
    assert "error" in outcomes
