"""The list of architectures: from a table in the package, at once, and as the sweep found it."""

import csv
import importlib
from pathlib import Path

import pytest
import timm
import torchvision
from coverage_report import KNOWN, write_known
from packaging.version import Version

from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.models.known import known_models, known_versions

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_sweep(monkeypatch, tmp_path):
    rows = list(csv.DictReader((ROOT / "docs/coverage.csv").read_text().splitlines()))
    monkeypatch.setattr("coverage_report.KNOWN", tmp_path / "known.csv")
    versions = (ROOT / "docs/coverage.md").read_text().partition("with ")[2].partition(". One")[0]
    write_known(rows, versions)
    assert (tmp_path / "known.csv").read_text() == KNOWN.read_text()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("googlenet", ["torchvision:googlenet", "torchvision:quantized_googlenet"]),
        ("inception_v?", ["inception_v3", "inception_v4"]),
        ("torchvision:vgg11*", ["torchvision:vgg11", "torchvision:vgg11_bn"]),
        ("timm:resnet18", ["torchvision:quantized_resnet18", "torchvision:resnet18"]),
    ],
)
def test_a_pattern_is_a_part_of_the_name_or_a_glob(pattern, names):
    assert [model.name for model in known_models(pattern)][: len(names)] == names


OLDER = any(
    Version(importlib.import_module(name).__version__) < Version(version)
    for name, version in (library.split() for library in known_versions().split(", "))
)


@pytest.mark.skipif(OLDER, reason=f"the table is of {known_versions()}")
def test_every_name_is_one_that_loads():
    known = {model.name for model in known_models()}
    assert {name for name in known if ":" not in name} <= set(timm.list_models())
    assert {name.partition(":")[2] for name in known if ":" in name} <= set(torchvision.models.list_models())


def test_sites_are_counted():
    counts = {model.name: (model.sites, model.functional) for model in known_models("inception_v3")}
    assert counts["inception_v3"] == (13, 11)


def test_a_miss_names_the_closest():
    with pytest.raises(InputError) as caught:
        known_models("reznet50")
    assert caught.value.hint == "did you mean resnet50?"


def test_the_command_lists_those_with_pools(capsys):
    assert main(["models", "convnext_tiny", "--with-pools"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["model  window sites  functional"]
    assert "0 with window pooling" in captured.err
