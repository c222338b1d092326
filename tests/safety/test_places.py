"""Where a result may go: never onto a device, a pipe, a folder or another's file, and nowhere through a link."""

import os

import pytest

from poolswap.ablate.grid import Grid
from poolswap.ablate.runs import RunFolder
from poolswap.ablate.study import Study
from poolswap.adapt.state import clear_states, sweep_states
from poolswap.cli.app import main
from poolswap.errors import InputError
from poolswap.files import write_text

SMALL = ("timm:test_resnet", "--num-classes", "3", "--input-size", "3,32,32")
CONVERT = ("convert", *SMALL, "--force", "--output")
PLAN = ("convert", *SMALL, "--dry-run", "--force", "--plan-out")
BENCH = ("bench", "--shape=1,2,8,8", "--repeats=2", "--no-compile", "--force")
TRAINING = ("--data", "digits", "--set", "epochs=1")


@pytest.fixture
def places(saved, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(saved[0].read_bytes())
    for name in ("pipe.safetensors", "pipe.pt"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "folder.safetensors" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        *(
            (*CONVERT, place)
            for place in ("pipe.safetensors", "folder.safetensors", "file/x.safetensors", "no/x.safetensors")
        ),
        *((*PLAN, place) for place in ("pipe.pt", "/dev/null", "folder.safetensors")),
        *((*BENCH, option, place) for option in ("--csv", "--plot") for place in ("pipe.pt", "/dev/null", "/dev/full")),
        ("export", "model.safetensors", "--to", "state-dict", "--no-verify", "--force", "--output", "pipe.pt"),
        *(
            ("export", "model.safetensors", "--to", "timm-folder", "--no-verify", "--force", "--output", place)
            for place in ("folder.safetensors", "file", "/dev/null", ".")
        ),
        *(("finetune", "model.safetensors", *TRAINING, "--force", "--output", place) for place in ("file", "pipe.pt")),
        ("recalibrate", "model.safetensors", "--data", "digits", "--force", "--output", "pipe.safetensors"),
        *(("ablate", *SMALL, *TRAINING, "--adapt=scratch", "--output", place) for place in ("file", "/dev/null", ".")),
    ],
    ids=lambda command: f"{command[0]} {command[-1]}",
)
def test_what_is_no_place_for_a_result(places, refused, command):
    before = {path: path.lstat()[:9] for path in places.rglob("*")}
    refused(*command)
    assert {path: path.lstat()[:9] for path in places.rglob("*")} == before


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "a.txt").symlink_to("target")
    write_text(tmp_path / "a.txt", "a", force=True)
    assert ((tmp_path / "target").read_text(), (tmp_path / "a.txt").is_symlink()) == ("mine", False)


def test_an_export_into_its_folder_replaces_no_folder_there(places, capsys, monkeypatch):
    monkeypatch.chdir(places)
    export = ("export", "model.safetensors", "--to", "timm-folder", "--no-verify", "--force", "--output", "out")
    assert main(list(export)) == 0
    (places / "out" / "README.md").unlink()
    (places / "out" / "README.md").mkdir()
    (places / "out.json").write_text("old")
    assert main(list(export)) == 2
    assert (places / "out.json").read_text() == "old"
    capsys.readouterr()


def test_states_of_a_training_are_those_that_it_wrote(tmp_path):
    for name in ("state-important", "state-z", "state-000000001", "state-000000002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    for forget in (sweep_states, clear_states):
        forget(tmp_path)
    assert len(list(tmp_path.glob("state-*/mine.txt"))) == 4


STUDY = Study.make({"model": "timm:test_resnet", "data": "digits"})


@pytest.mark.parametrize("name", ["trials", "trials/0", "trials/0/lock", "trials/0/log.txt", "trials/0/training"])
def test_no_run_follows_a_link_out_of_its_folder(tmp_path, name):
    runs = RunFolder(tmp_path / "run")
    runs.open(STUDY, Grid(layers=(), cells=(), trials={}))
    link = runs.path / name
    if name == "trials":
        link.rmdir()
    link.parent.mkdir(exist_ok=True, parents=True)
    link.symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link"):
        runs.open(STUDY, Grid(layers=(), cells=(), trials={}))


def test_a_result_that_is_a_pipe_is_none(tmp_path):
    runs = RunFolder(tmp_path)
    runs.trial("0").mkdir(parents=True)
    os.mkfifo(runs.trial("0") / "result.json")
    assert runs.result("0") is None
