"""`--backend`: an order that is met or refused, for the length of the command."""

import pytest

from poolswap.cli import app
from poolswap.cli.app import COMPUTING, main
from poolswap.ops import backend, cpu

CONVERT = ["convert", "test_resnet", "--input-size", "3,64,64", "--quiet", "--force"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_reference_computes_where_it_is_asked_for(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the C++ kernel ran")

    monkeypatch.setattr(cpu, "forward", refuse)
    assert main([*CONVERT, "--backend", "reference"]) == 0
    assert backend.requested() == "auto"


def test_what_cannot_be_met_is_a_usage_error(capsys):
    assert main([*CONVERT, "--backend", "cuda"]) == 2
    assert "backend 'cuda' cannot run" in capsys.readouterr().err
    assert backend.requested() == "auto"


def test_every_command_that_computes_takes_it(capsys):
    assert app.COMMANDS.keys() >= COMPUTING
    for name in COMPUTING:
        main([name, "--help"])
        assert "--backend" in capsys.readouterr().out
