"""What a command prints for pasting works when it is pasted: quotes, --trust-code, packages."""

import shlex
import tomllib
from pathlib import Path

import pytest

from poolswap.cli.app import main
from poolswap.errors import MissingExtraError

NET = """
from torch import nn
from poolswap.nn import WindowPool
from poolswap.nn.windows import window_max


class Net(nn.Sequential):
    input_size = (3, 8, 8)

    def __init__(self, classes=10):
        super().__init__(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, classes))


class Half(WindowPool):
    '''y = max / 2'''

    def forward(self, x):
        return window_max(x, self.geometry) / 2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    place = tmp_path / "my nets"
    place.mkdir()
    (place / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)


def pasted(line: str) -> int:
    """Run the poolswap command at the end of a printed line."""
    command = line[line.index("poolswap ") :]
    return main(shlex.split(command)[1:])


@pytest.mark.parametrize("options", [[], ["--to", "my nets/net.py:Half"]])
@pytest.mark.parametrize("model", ["my nets/net.py:Net", "test_resnet"])
def test_a_conversion_says_how_to_verify_it(model, options, capsys):
    assert main(["convert", model, *options, "-o", "my nets/soft pool.safetensors"]) == 0
    (saved,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("saved")]
    assert pasted(saved) == 0


def test_a_training_says_what_comes_next(capsys):
    training = ["--data", "digits", "--set", "epochs=1", "--batch-size", "512", "-o", "my nets/stock"]
    assert main(["finetune", "my nets/net.py:Net", *training]) == 0
    err = capsys.readouterr().err
    assert "epoch 1/1" in err  # the recipe took --set
    (hint,) = [line for line in err.splitlines() if line.startswith("hint:")]
    assert hint == "hint: poolswap convert 'my nets/stock/last.safetensors' --trust-code"
    assert pasted(hint) == 0
    capsys.readouterr()
    assert main(["inspect", "Net-softpool.safetensors", "--trust-code"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["0", "max", "2x2/2", "soft"]


def test_a_hint_for_a_missing_folder_is_one_word_of_a_shell(capsys):
    assert main(["convert", "test_resnet", "-o", "no such/a.safetensors"]) == 2
    assert "hint: mkdir -p 'no such'" in capsys.readouterr().err


def test_a_missing_extra_names_the_packages_that_the_project_declares():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extra, packages in project["optional-dependencies"].items():
        hint = MissingExtraError("it", extra).hint
        assert sorted(shlex.split(hint)[2:]) == sorted(packages) or extra == "test"


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        (["version"], "no such command 'version'", "poolswap --version"),
        (["help"], "no such command 'help'", "poolswap --help"),
        (["convrt", "resnet18"], "no such command 'convrt'. Did you mean 'convert'?", "poolswap --help"),
        (["finetune", "test_resnet", "--data", "digits", "--seed", "-1"], "--seed: must be at least 0", None),
        (["finetune", "test_resnet", "--data", "digits", "--set", "mixupp=1"], "no such field", "did you mean mixup?"),
        (
            ["finetune", "test_resnet", "--data", "digits", "--opt", "adamx"],
            "no such optimiser",
            "did you mean adamax?",
        ),
        (["finetune", "test_resnet", "--data", "digits", "--sched", "cosin"], "no such sch", "did you mean cosine?"),
        (["finetune", "test_resnet", "--data", "digits", "--set", "epochs=abc"], "must be a whole number", "epochs: 5"),
        (["convert", "test_resnet", "--num-classes", "1000000000"], "more memory than", "--num-classes"),
        (["convert", "my nets/net.py:Net", "--num-classes", "3"], "takes no argument 'num_classes'", "takes classes"),
    ],
)
def test_a_typo_gets_one_line_and_the_right_word(typed, message, hint, capsys):
    assert main(typed) == 2
    error, *rest = capsys.readouterr().err.splitlines()
    assert message in error
    assert (hint or "") in rest[0]
    assert len(rest) == 1


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["ablate", "test_resnet", "--data", "digits", "--recipe", "rce.yaml"], "did you mean rec.yaml?"),
        (["finetune", "test_resnet", "--data", "digits", "--recipe", "other.json"], "write for example epochs: 5"),
        (["convert", "test_resnet", "--plan", "rec.yml"], "did you mean rec.yaml?"),
        (["verify", "soft.safetensor"], "did you mean soft.safetensors?"),
        (["verify", "nothing.safetensors"], "make one with poolswap convert MODEL"),
    ],
)
def test_a_file_that_is_not_there_is_told_in_our_words(command, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("rec.yaml", "soft.safetensors", "soft.onnx"):
        (tmp_path / name).touch()
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: there is no file {command[-1]}", f"hint: {hint}"]


@pytest.mark.parametrize(
    ("command", "work", "hint"),
    [
        (["finetune", "test_resnet", "--data", "digits"], "poolswap.adapt.finetune", "--resume"),
        (
            ["ablate", "test_resnet", "--data", "digits", "--from-scratch"],
            "poolswap.ablate.run.run_trials",
            "the same line goes on",
        ),
    ],
)
def test_ctrl_c_in_long_work_says_how_to_go_on(command, work, hint, monkeypatch, capsys):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, interrupted)
    assert main([*command, "--input-size", "3,32,32", "-q"]) == 130
    error, said = capsys.readouterr().err.splitlines()
    assert error == "error: interrupted"
    assert hint in said
