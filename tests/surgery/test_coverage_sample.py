"""A stratified sample of the sweep over every architecture (benchmarks/coverage.py), in the ordinary run.

It spans the kinds of pooling module (1d, 2d, 3d, SAME) and of owners of functional calls that the two libraries have.
"""

import csv
from pathlib import Path

import pytest
from coverage_check import check, references

TABLE = Path(__file__).parents[2] / "docs" / "coverage.csv"

# (architecture, window kernels that one forward runs)
SAMPLE = [
    ("timm:resnet10t", 4),
    ("timm:ghostnetv2_100", 14),
    ("timm:ghostnetv3_100", 14),
    ("timm:inception_v3", 13),
    pytest.param("timm:mobilenetv5_300m", 1, marks=pytest.mark.slow),
    ("timm:nextvit_small", 6),
    ("timm:nasnetalarge", 78),
    ("timm:poolformer_s12", 12),
    ("torchvision:inception_v3", 13),
    ("torchvision:s3d", 13),
    ("torchvision:raft_small", 3),
    ("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", 1),
    ("torchvision:quantized_inception_v3", 13),
    ("torchvision:mvit_v1_b", 3),
    ("timm:efficientnet_b0", 0),
]


@pytest.mark.parametrize(("reference", "ran"), SAMPLE)
def test_all_that_runs_is_found_and_replaced(reference, ran):
    """Problems: a window kernel not found or not replaced, a shape changed, an output moved by lifting alone."""
    result = check(reference)
    assert result.problem is None
    assert (result.ran, result.found, result.left, result.unreplaceable) == (ran, ran, 0, [])
    assert (result.lifted is not None) == (result.functional > 0)


@pytest.mark.sweep
@pytest.mark.parametrize("reference", references())
def test_every_architecture(reference):
    """The whole sweep, without its worker processes and without going on where it was broken off."""
    assert check(reference).problem is None


def test_the_committed_table_of_the_sweep_holds_no_problem():
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows if row["problem"]] == []
    assert all(row["ran"] == row["found"] for row in rows)


def test_the_committed_table_of_other_libraries_holds_no_problem():
    with TABLE.with_name("coverage-libraries.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 100
    assert [row["model"] for row in rows if row["problem"]] == []
    assert all(row["ran"] == row["found"] for row in rows)
    assert all(row["left"] == "0" or row["why_left"] for row in rows)
