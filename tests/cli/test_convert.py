"""inspect, convert and verify as a person types them: streams, exit codes, files."""

import json

import pytest

from poolswap.cli.app import main
from poolswap.surgery.plan import Plan

NET = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    input_size = (3, 32, 32)

    def __init__(self, classes=4):
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), nn.Linear(4, classes)

    def forward(self, x):
        x = F.avg_pool2d(self.pool(self.conv(x)), 2)
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


SMALL = ("resnet18d", "--input-size", "3,64,64", "--num-classes", "5")


def test_convert_saves_a_checkpoint_that_verifies(run, folder):
    code, out, err = run("convert", *SMALL, "--layers", "all")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["maxpool", "max"]
    assert "warning: the weights are random (seed 0)" in err
    assert "prove it with: poolswap verify resnet18d-softpool.safetensors" in err
    code, out, _ = run("verify", "resnet18d-softpool.safetensors")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["metadata", "yes"],
        ["file", "yes"],
        ["plan", "yes"],
        ["fingerprint", "yes"],
    ]
    assert sorted(path.name for path in folder.iterdir() if path.suffix) == ["net.py", "resnet18d-softpool.safetensors"]


def test_json_is_one_document_that_lists_the_sites(run):
    code, out, _ = run("convert", *SMALL, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["replaced"] == 4
    assert document["swapped"][0]["path"] == "maxpool"
    assert document["drift"]["output"] > 0
    code, out, _ = run("verify", document["checkpoint"], "--json")
    assert json.loads(out)["ok"] is True
    _, out, _ = run("inspect", *SMALL, "--json")
    assert [site["path"] for site in json.loads(out)["sites"]][:2] == ["maxpool", "layer2.0.downsample.0"]


def test_inspect_prints_every_site(run):
    code, out, err = run("inspect", "net.py:Net")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["1", "pool", "module", "max"],
        ["2", "pool_1", "functional", "avg"],
        ["3", "pool_2", "functional", "avg"],
    ]
    assert "2 window sites (1 functional), 1 global" in err


def test_a_dry_run_writes_nothing_but_the_plan_it_was_asked_for(run, folder):
    code, out, _ = run("convert", *SMALL, "--layers", "2", "--dry-run", "--plan-out", "plan.yaml")
    assert code == 0
    assert out.splitlines()[1].split()[1] == "maxpool"
    assert Plan.read("plan.yaml").paths == ("maxpool", "layer2.0.downsample.0")
    assert sorted(path.name for path in folder.iterdir()) == ["net.py", "plan.yaml"]


def test_a_plan_file_reproduces_the_conversion(run):
    run("convert", *SMALL, "--swap", "#2=soft:beta=2", "--plan-out", "plan.json", "--output", "a.safetensors")
    code, _, _ = run("convert", *SMALL, "--plan", "plan.json", "--output", "b.safetensors")
    assert code == 0
    assert run("verify", "b.safetensors")[0] == 0
    from poolswap.checkpoint import load_checkpoint

    first, second = (load_checkpoint(name)[1] for name in ("a.safetensors", "b.safetensors"))
    assert first.sha256 == second.sha256
    assert first.plan == second.plan


def test_a_users_file_converts_and_loads_only_when_trusted(run):
    code, _, _ = run("convert", "net.py:Net", "--model-arg", "classes=3", "--export", "state-dict")
    assert code == 0
    code, _, err = run("verify", "Net-softpool.safetensors")
    assert code == 2
    assert "would run that file" in err
    assert run("verify", "Net-softpool.safetensors", "--trust-code")[0] == 0


ERRORS = {
    "unknown model": (["convert", "resnet5O"], 2, "the closest names are resnet50"),
    "unknown selector": (["convert", *SMALL, "--layers", "layer9.*"], 2, "matches no pooling site"),
    "too many": (["convert", *SMALL, "--layers", "9"], 2, "a number from 1 to 4, or all"),
    "nothing": (["convert", "efficientnet_b0"], 5, "no window pooling"),
    "two sources": (["convert", *SMALL, "--pretrained", "--checkpoint", "x.pt"], 2, "give one of them"),
    "bad size": (["inspect", "resnet18", "--input-size", "3x64"], 2, "C,H,W"),
    "bad swap": (["convert", *SMALL, "--swap", "soft"], 2, "SITES=OPERATOR"),
    "plan and layers": (["convert", *SMALL, "--layers", "1", "--plan", "net.py"], 2, "is not a plan"),
    "bad plan name": (["convert", *SMALL, "--plan-out", "plan.txt"], 2, "neither YAML nor JSON"),
    "unknown operator": (["convert", *SMALL, "--to", "sofd"], 2, "try one of"),
    "no folder": (["convert", *SMALL, "--output", "no/where.safetensors"], 2, "mkdir -p no"),
    "no checkpoint": (["verify", "nothing.safetensors"], 2, "there is no file"),
    "not a checkpoint": (["verify", "net.py"], 2, "not a safetensors file"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_line_a_hint_and_an_exit_code(run, folder, name):
    arguments, code, words = ERRORS[name]
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert words in err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir() if path.suffix != ".pyc"] in (["net.py"], ["net.py", "__pycache__"])


def test_nothing_is_overwritten_without_force(run):
    assert run("convert", *SMALL)[0] == 0
    code, _, err = run("convert", *SMALL)
    assert code == 2
    assert "exists already" in err
    code, _, err = run("convert", *SMALL, "--layers", "frist")  # of two mistakes the one that choosing a name leaves
    assert code == 2
    assert err.splitlines()[-1] == "hint: did you mean first?"
    assert run("convert", *SMALL, "--force")[0] == 0


def test_verify_exits_1_where_a_check_fails(run, folder):
    run("convert", *SMALL)
    path = folder / "resnet18d-softpool.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1000] ^= 1
    path.write_bytes(raw)
    code, out, err = run("verify", path.name)
    assert code == 1
    assert "file         no" in out
    assert "does not verify" in err


AREA = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    input_size = (3, 32, 32)

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)

    def forward(self, x):
        return F.interpolate(self.pool(self.conv(x)), scale_factor=0.5, mode="area").mean((2, 3))
"""


def test_what_all_could_not_replace_is_said_and_strict_fails_before_anything_is_written(run, folder):
    (folder / "area.py").write_text(AREA)
    code, _, err = run("convert", "area.py:Net", "--strict")
    assert (code, list(folder.glob("*.safetensors"))) == (1, [])
    assert "stays stock: it is area interpolation" in err
    code, out, err = run("convert", "area.py:Net", "--json")
    assert code == 0
    assert "the model itself stays stock: it is area interpolation" in err
    assert [left["path"] for left in json.loads(out)["plan"]["left"]] == [""]
    assert run("convert", "area.py:Net", "--strict", "--layers", "first", "--force")[0] == 0


def test_inspect_says_what_it_looks_for(run):
    _, _, err = run("inspect", "net.py:Net")
    assert "looked for: max, average and adaptive pooling" in err
