"""The numbers are scikit-image's, the picture is what the operator makes of it, and the files can be looked at."""

import csv
import json
import math
import re

import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional as F

from poolswap.cli.images import images
from poolswap.cli.output import Output
from poolswap.errors import InputError
from poolswap.images import Picture, average, bundled_pictures, compare, psnr, rows_of, ssim, write_page, write_sheet
from poolswap.images.sheet import busiest_detail, draw_sheet
from poolswap.operators import OPERATORS, split_operators


@pytest.fixture(scope="module")
def cat():
    return bundled_pictures(max_side=96)[1]


def test_measures_are_those_of_scikit_image(cat):
    noise = torch.rand(cat.pixels.shape, generator=torch.Generator().manual_seed(0))
    other = (cat.pixels * 0.8 + noise * 0.2).clamp(0, 1)
    x, y = cat.pixels.double().numpy(), other.double().numpy()
    assert ssim(cat.pixels, other) == pytest.approx(
        structural_similarity(x, y, data_range=1.0, channel_axis=0), abs=1e-9
    )
    assert psnr(cat.pixels, other) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1.0), abs=1e-9)
    assert ssim(other, other) == pytest.approx(1)
    assert psnr(other, other) == math.inf
    with pytest.raises(ValueError, match="two pictures of one size"):
        ssim(other[:, :5, :5], other[:, :5, :5])


def test_a_picture_is_pooled_and_restored(cat):
    (result,) = compare(cat, ["avg"], [5]).results
    reference = cat.pixels[:, : cat.size[0] // 5 * 5, : cat.size[1] // 5 * 5]
    restored = F.interpolate(F.avg_pool2d(reference, 5)[None], reference.shape[1:], mode="bilinear")[0]
    assert torch.equal(result.restored, (restored * 255).round().to(torch.uint8))
    assert result.ssim == ssim(restored, reference)


def test_a_window_of_one_loses_nothing(cat):
    (result,) = compare(cat, ["soft"], [1], restore="nearest").results
    assert result.ssim == pytest.approx(1)
    assert result.psnr > 100


def test_an_operator_of_heads_alone_is_refused_before_anything_is_pooled(cat):
    seen = []
    with pytest.raises(InputError, match="'spp' replaces the global pooling of a head alone"):
        compare(cat, ["soft", "spp"], [2], on_result=seen.append)
    assert seen == []


def test_every_operator_has_its_numbers(cat):
    state = torch.get_rng_state()
    names = split_operators("all")
    comparison = compare(cat, names, [2, 3])
    assert torch.equal(torch.get_rng_state(), state)
    assert [(r.kernel, r.operator) for r in comparison.results] == [(k, n) for k in (2, 3) for n in names]
    assert all(0 < r.ssim < 1 and 10 < r.psnr < 60 for r in comparison.results)
    assert [r.ssim for r in compare(cat, names, [2, 3]).results] == [r.ssim for r in comparison.results]


def test_operators_are_split_at_the_commas_between_them():
    assert split_operators("max, lp:p=3,learn=true,soft") == ["max", "lp:p=3,learn=true", "soft"]
    assert split_operators("all") == [name for name in OPERATORS if name not in ("em", "simpool", "spp")]


@pytest.mark.parametrize("kernel", [0, 50])
def test_a_kernel_that_does_not_suit_is_refused(cat, kernel):
    with pytest.raises(InputError, match=f"kernel {kernel} does not suit chelsea") as caught:
        compare(cat, ["max"], [kernel])
    assert caught.value.hint == "use kernels from 1 to 16"


def test_rows_are_averaged_over_pictures(cat):
    other = Picture("other", cat.pixels.flip(0) * 0.5)
    rows = [row for p in (cat, other) for row in rows_of(compare(p, ["max", "avg"], [2]))]
    means = average(rows)
    assert [(m.picture, m.kernel, m.operator) for m in means] == [(None, 2, "max"), (None, 2, "avg")]
    assert means[0].ssim == pytest.approx((rows[0].ssim + rows[2].ssim) / 2)
    assert means[1].psnr == pytest.approx((rows[1].psnr + rows[3].psnr) / 2)


def test_the_detail_is_where_the_picture_is_busy():
    pixels = torch.full((3, 60, 120), 0.5)
    pixels[:, 30:40, 60:80] = torch.rand(10, 20, generator=torch.Generator().manual_seed(0))
    box = busiest_detail(Picture("busy", pixels))
    assert (box.height, box.width) == (10, 20)
    assert abs(box.top - 30) <= 2
    assert abs(box.left - 60) <= 2


def test_the_sheet_has_a_cell_for_every_result(cat, tmp_path):
    comparison = compare(cat, ["max"], [2])
    few, many = draw_sheet(comparison), draw_sheet(compare(cat, split_operators("all"), [2, 3]))
    assert few.width < many.width
    assert many.height > 4 * few.height
    write_sheet(tmp_path / "few.png", comparison)
    with Image.open(tmp_path / "few.png") as written:
        assert (written.format, written.size) == ("PNG", few.size)
    with pytest.raises(InputError, match="exists already"):
        write_sheet(tmp_path / "few.png", comparison)


@pytest.mark.parametrize("size", [(16, 400), (400, 16)])
def test_a_narrow_picture_fits_its_cells(size):
    sheet = draw_sheet(compare(Picture("narrow", torch.rand(3, *size)), ["max"], [2]))
    assert sheet.height < 1200


def test_the_page_needs_nothing_but_itself(cat, tmp_path):
    picture = Picture("</script><b>", cat.pixels)
    write_page(tmp_path / "page.html", compare(picture, ["max", "soft:beta=20"], [2, 5]))
    page = (tmp_path / "page.html").read_text()
    assert page.count("</script>") == 1
    assert "&lt;/script&gt;&lt;b&gt;" in page
    assert not re.search(r"(src|href)=|https?://|url\(", page)
    data = json.loads(re.search(r"const data = (.*);\n", page)[1])
    assert (data["kernels"], data["operators"]) == ([2, 5], ["max", "soft:beta=20"])
    for name in ("ssim", "psnr"):
        for kernel in (2, 5):
            frames = [frame for frame in data["frames"] if frame["kernel"] == kernel]
            highest = max(float(frame[name]) for frame in frames)
            assert all(frame["best"][name] == (float(frame[name]) == highest) for frame in frames)
    assert all(frame["image"].startswith("data:image/jpeg;base64,") for frame in data["frames"])


def test_all_that_tie_as_printed_are_the_best(cat):
    comparison = compare(cat, ["max", "soft", "soft:beta=1.0"], [2])
    assert comparison.best(2, "ssim") == comparison.best(2, "psnr") == {"soft", "soft:beta=1.0"}


def test_the_command_writes_sheets_pages_and_a_table(cat, tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.fromarray((cat.pixels * 255).byte().permute(1, 2, 0).numpy()).save(photo)
    options = {"operators": "max,lp:p=3,learn=true", "kernels": "2,3", "folder": tmp_path / "out", "max_side": 64}
    images(Output(json=True, quiet=True), [photo, photo], **options)
    document = json.loads(capsys.readouterr().out)
    assert len(document["rows"]) == 8
    assert len(document["means"]) == 4
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["photo-2.html", "photo-2.png", "photo.html", "photo.png", "pools.csv"]
    table = list(csv.DictReader((tmp_path / "out" / "pools.csv").read_text().splitlines()))
    assert float(table[1]["ssim"]) == document["rows"][1]["ssim"]
    assert table[1]["operator"] == "lp:p=3,learn=true"
    with pytest.raises(InputError, match="exists already"):
        images(Output(), [photo], **options)
    images(Output(), [photo], **options, force=True)
    captured = capsys.readouterr()
    assert [line.split()[:2] for line in captured.out.splitlines()] == [
        ["kernel", "operator"],
        *([k, name] for k in ("2", "3") for name in ("max", "lp:p=3,learn=true")),
    ]
    assert "photo: reduced from 96x64 to 64x43" in captured.err
    with pytest.raises(InputError, match="cannot be made"):
        images(Output(), [photo], folder=photo)
    with pytest.raises(InputError, match="not a list of sizes"):
        images(Output(), [photo], kernels="two", folder=tmp_path / "out")
