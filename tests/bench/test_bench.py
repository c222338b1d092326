"""The benchmarks measure what they say, and print it in every form."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from terminal import terminal

from poolswap.bench import Case, ModelRow, OperatorRow, bench_model, bench_operator, report
from poolswap.bench.environment import threads
from poolswap.bench.operator import two_averages
from poolswap.bench.values import NORMAL, VALUES, available, network_input
from poolswap.cli.app import main
from poolswap.cli.output import Output
from poolswap.errors import MissingExtraError
from poolswap.functional import soft_pool2d
from poolswap.measure import Timing

SMALL = Case((1, 4, 12, 12), 3, 2, 1)


@pytest.mark.usefixtures("three_threads")
def test_threads_are_put_back() -> None:
    with threads(1) as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_the_two_average_formulation_is_the_same_function() -> None:
    x = torch.randn(SMALL.shape)
    torch.testing.assert_close(two_averages(x, SMALL), soft_pool2d(x, 3, 2, 1))


def test_operator_rows_name_every_contestant_in_both_layouts_and_directions() -> None:
    rows = bench_operator([SMALL], repeats=2, compiled=False)
    for direction, more in (("forward", {"exp"}), ("forward+backward", set())):
        usual = {"soft_pool", "max_pool2d", "avg_pool2d", "two averages", "copy", *more}
        own = [row for row in rows if row.direction == direction and row.values == NORMAL]
        assert {row.contestant for row in own if row.layout == "channels_last"} == usual
        one_dnn = {"avg_pool2d, oneDNN"} if torch.backends.mkldnn.is_available() else set()
        assert {row.contestant for row in own if row.layout == "contiguous"} == usual | one_dnn
    assert {(row.layout, row.direction) for row in rows} == {
        (layout, direction)
        for layout in ("contiguous", "channels_last")
        for direction in ("forward", "forward+backward")
    }
    for row in rows:
        assert row.ratio > 0
        assert (row.roofline is None) == (row.contestant in ("exp", "copy", "avg_pool2d, oneDNN"))


def test_softpool_and_max_pooling_are_timed_on_every_kind_of_values() -> None:
    rows = bench_operator([SMALL], repeats=2, compiled=False, memory=False)
    pairs = {(row.layout, row.direction, row.values) for row in rows if row.contestant == "soft_pool"}
    assert pairs == {(row.layout, row.direction, row.values) for row in rows if row.contestant == "max_pool2d"}
    assert {values for _, _, values in pairs} == set(available(2))


def operator_row(direction: str, values: str, contestant: str, ratio: float) -> OperatorRow:
    timing = Timing(median=12.3456, low=10.0, high=100.0, fastest=9.0)
    case = "8x64x112x112 k3 s2 p1"
    return OperatorRow(case, "channels_last", values, direction, contestant, timing, ratio, 1, 0.01, 2**30)


ROWS = [
    operator_row(direction, values, contestant, ratio)
    for direction in ("forward", "forward+backward")
    for values, ratio in ((NORMAL, 0.5), ("spikes of 1e4", 0.9), ("relu x2", 0.25))
    for contestant in (
        "soft_pool",
        "max_pool2d",
        *(("avg_pool2d", "two averages, compiled") if values == NORMAL else ()),
    )
]


def test_a_summary_is_the_best_and_the_worst_of_each_pass() -> None:
    case = "8x64x112x112 k3 s2 p1"
    assert report.summary_table(ROWS) == [
        [case, "channels_last", direction, 12.346, 0.25, 0.9, "spikes of 1e4", 0.5, 1024.0]
        for direction in ("forward", "forward+backward")
    ]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("verbose", [False, True])
def test_a_terminal_shows_the_summary_whole_and_the_rest_on_demand(width, verbose, monkeypatch) -> None:
    monkeypatch.setattr("poolswap.bench.bench_operator", lambda *_, **__: ROWS)
    screen = terminal(monkeypatch, width)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["bench", "-q", *(["-v"] if verbose else [])]) == 0
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:3] == (["case", "layout", "values"] if verbose else ["case", "layout", "pass"])
    assert verbose or len(lines) == 3
    assert verbose or ("spikes of 1e4" in lines[1]) == (width == 120)


@pytest.mark.parametrize("width", [80, 120])
def test_whole_models_fit_a_terminal(width, monkeypatch) -> None:
    timing = Timing(median=1234.5678, low=1000.0, high=1300.0, fastest=999.0)
    row = ModelRow(
        *("torchvision:mobilenet_v3_small", 16, "channels_last", "photographs", "training"),
        *(3, timing, timing, 1.0, 2**33, 2**33),
    )
    screen = terminal(monkeypatch, width)
    monkeypatch.setenv("NO_COLOR", "1")
    Output(quiet=True).table(None, report.MODEL_COLUMNS, report.model_table([row]), spare=report.MODEL_SPARE)
    assert max(map(len, screen.getvalue().splitlines())) <= width


def test_values_have_the_shape_asked_for_and_what_their_names_say() -> None:
    for name in available(2):
        x = VALUES[name]((3, 130, 9, 12))
        assert x.shape == (3, 130, 9, 12)
        assert bool(x.isfinite().all())
        assert float(x.std()) > 0
    assert "photographs" not in available(3)


@pytest.mark.parametrize("shape", [(2, 3, 20), (1, 2, 6, 6, 6)])
def test_other_numbers_of_dimensions(shape: tuple[int, ...]) -> None:
    rows = bench_operator([Case(shape, 2, 2)], repeats=2, compiled=False, memory=False)
    assert f"max_pool{len(shape) - 2}d" in {row.contestant for row in rows}


def test_model_rows_compare_original_and_swapped(tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text(
        "from torch import nn\n"
        "def small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(4, 2))\n"
    )
    rows = bench_model(f"{net}:small", [1, 2], repeats=2, memory=False)
    assert [(row.batch_size, row.layout, row.direction) for row in rows] == [
        (batch, layout, direction)
        for layout in ("contiguous", "channels_last")
        for batch in (1, 2)
        for direction in ("forward", "training")
    ]
    assert all(row.replaced == 1 and row.ratio > 0 for row in rows)


def test_networks_are_timed_on_photographs_where_they_take_pictures() -> None:
    if "photographs" in available(2):
        values, x = network_input((9, 3, 40, 32))
        assert (values, x.shape) == ("photographs", (9, 3, 40, 32))
        assert x[8].equal(x[0])
        assert not x[1].allclose(x[0])
        assert 0.5 < float(x.std()) < 2
    assert [network_input(shape)[0] for shape in ((1, 1, 8, 8), (2, 3, 20))] == [NORMAL, NORMAL]


def test_command_prints_one_document_and_writes_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "rows.csv"
    options = ["--shape", "1,4,12,12", "--stride", "2", "--padding", "1", "--no-compile", "--repeats", "2"]
    assert main(["bench", *options, "--json", "--csv", str(target)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["environment"]["threads"] >= 1
    lines = list(csv.DictReader(target.read_text().splitlines()))
    assert len(lines) == len(document["rows"])
    assert {line["case"] for line in lines} == {"1x4x12x12 k3 s2 p1"}
    assert main(["bench", *options, "--csv", str(target)]) == 2  # not overwritten


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "8,64"], "is not N,C,H,W"),
        (["--shape", "1,1,2,2", "--kernel", "5"], "no window fits"),
        (["--shape", "1,1,8,8", "--model", "resnet18"], "two benchmarks"),
    ],
)
def test_command_says_what_does_not_fit(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = bench_operator([SMALL], repeats=2, compiled=False, memory=False)
    target = tmp_path / "bench.png"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        report.save_picture(rows, target)
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    report.save_picture(rows, target)
    assert target.stat().st_size > 1000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_usage_error(capsys) -> None:
    assert main(["bench", "--device", "cuda"]) == 2
    assert "no CUDA or ROCm device" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA or ROCm device")
def test_on_a_gpu_every_contestant_has_a_time_and_its_share_of_the_copy_speed() -> None:
    rows = bench_operator([Case((8, 64, 112, 112), 3, 2, 1)], device="cuda", repeats=3, compiled=False)
    assert all(row.timing.median > 0 and (row.peak_bytes or 1) > 0 for row in rows)
    assert all(row.roofline for row in rows if row.contestant == "soft_pool")
