"""`poolswap export` and `convert --export`."""

import json

import pytest
import torch

from poolswap.cli.app import main
from poolswap.export import FORMATS, parity


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert = ["convert", "resnet18", "--layers", "all", "--input-size", "3,64,64", "-q"]
    assert main([*convert, "--export", "state-dict", "--output", "c.safetensors"]) == 0
    assert (tmp_path / "c.pt").is_file()
    return tmp_path / "c.safetensors"


def test_export_prints_the_parity_and_writes_the_file(checkpoint, capsys):
    capsys.readouterr()
    assert main(["export", "c.safetensors", "--to", "state-dict", "--output", "d.pt"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["input", "batch", "relative", "difference"]
    assert len(out.splitlines()) == 5
    assert "saved d.pt (state-dict" in err
    assert main(["export", "c.safetensors", "--to", "state-dict", "--force", "--json", "--no-verify"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "state-dict"
    assert document["parity"] == []


def test_failures_have_their_exit_codes(checkpoint, capsys, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(parity, "outputs_of", lambda *_: [torch.ones(2, 5)])
        assert main(["export", "c.safetensors", "--to", "state-dict", "--output", "d.pt"]) == 1
    assert not checkpoint.with_name("d.pt").exists()
    assert main(["export", "c.safetensors", "--to", "tflite"]) == 2
    assert main(["export", "nothing.safetensors"]) == 2
    assert main(["convert", "resnet18", "--export", "tflite"]) == 2
    assert "error: unknown format 'tflite'" in capsys.readouterr().err


def test_the_help_names_every_format(capsys):
    assert main(["export", "--help"]) == 0
    out = "".join(capsys.readouterr().out.split())  # lines break at hyphens
    assert [name for name in FORMATS if name not in out] == []
