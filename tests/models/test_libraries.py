"""The factories of docs/libraries.md, as a person pastes them: inspected, converted and verified."""

import re
from pathlib import Path

import pytest

from poolswap.cli.app import main

PAGE = (Path(__file__).parents[2] / "docs" / "libraries.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"## (\S+)\n\n```python\n(.*?)```", PAGE, re.DOTALL)
MODULES = {"MONAI": "monai", "facenet-pytorch": "facenet_pytorch"}
SIZES = {"MONAI": "1,32,32,32", "facenet-pytorch": "3,96,96"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "code"), BLOCKS, ids=[library for library, _ in BLOCKS])
def test_the_factory_converts_and_verifies(library, code, tmp_path, monkeypatch, capsys):
    pytest.importorskip(MODULES.get(library, library))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(code)
    assert len(code.splitlines()) <= 5
    factory = re.search(r"def (\w+)", code)[1]
    size = ("--input-size", SIZES.get(library, "3,64,64"))
    assert main(["convert", f"net.py:{factory}", *size, "--output", "net.safetensors"]) == 0, capsys.readouterr().err
    assert main(["verify", "net.safetensors", "--trust-code"]) == 0, capsys.readouterr().err


def test_every_library_of_the_page_has_a_factory():
    assert len(BLOCKS) == 5
