"""A write replaces nothing by accident, leaves nothing half written, and tidies up after those that were killed."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from poolswap.errors import InputError
from poolswap.files import PARTIAL, atomic_path, check_folder_place, hold, save_tensors, sweep, torch_save, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def python(code, *arguments, **options):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_the_file_has_the_rights_that_any_new_file_has(tmp_path):
    write_text(tmp_path / "a.txt", "a")
    (tmp_path / "b.txt").write_text("b")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_of_two_writers_without_force_the_second_is_told(tmp_path):
    path = tmp_path / "a.txt"

    def overtaken():
        with atomic_path(path) as mine:
            mine.write_text("second")
            write_text(path, "first")

    with pytest.raises(InputError, match="exists already"):
        overtaken()
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_with_force_the_last_writer_wins(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_path(path, force=True) as mine:
        mine.write_text("second")
        write_text(path, "first")
    assert path.read_text() == "second"


def test_a_link_to_nowhere_is_a_name_that_is_taken(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"):
        write_text(tmp_path / "a.txt", "a")


def test_where_there_are_no_links_a_file_is_renamed(tmp_path, monkeypatch):
    def unable(*names):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)
    write_text(tmp_path / "a.txt", "a")
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, error):

    def write():
        with atomic_path(tmp_path / "a.txt") as mine:
            mine.write_text("half")
            raise error

    with pytest.raises(InputError, match=r"a\.txt cannot be written: No space left on device$"):
        write()
    assert names(tmp_path) == []


def test_tensors_are_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save_tensors({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [0, 0]


def test_a_folder_that_cannot_be_made_is_known_before_anything_is(tmp_path):
    (tmp_path / "file").touch()
    check_folder_place(tmp_path / "new" / "folder")
    with pytest.raises(InputError, match="file is no folder that can be written to"):
        check_folder_place(tmp_path / "file" / "folder")
    assert names(tmp_path) == ["file"]


def test_a_state_dict_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    """Really full: the system allows this process no file above 10 kB. torch's writer fails there by an assertion."""
    code = """
        import resource, sys
        from torch import nn
        from poolswap.errors import InputError
        from poolswap.files import atomic_path, torch_save
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            with atomic_path(sys.argv[1]) as path:
                torch_save(nn.Linear(100, 100).state_dict(), path)
        except InputError as error:
            print(error.message)
    """
    output, error = python(code, tmp_path / "a.pt").communicate(timeout=120)
    assert "cannot be written: File too large" in output, error
    assert names(tmp_path) == []


def test_what_a_killed_writer_left_is_swept_at_the_next_write(tmp_path):
    code = """
        import os, signal, sys
        from poolswap.files import atomic_path
        with atomic_path(sys.argv[1]) as path:
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    writer = python(code, tmp_path / "a.txt")
    assert writer.wait(timeout=120) == -signal.SIGKILL
    writer.communicate()
    assert [name.startswith(PARTIAL) for name in names(tmp_path)] == [True]
    write_text(tmp_path / "b.txt", "b")
    assert names(tmp_path) == ["b.txt"]


def test_nobody_sweeps_what_a_living_writer_holds(tmp_path):
    with atomic_path(tmp_path / "a.txt") as mine:
        mine.write_text("a")
        write_text(tmp_path / "b.txt", "b")
        sweep(tmp_path)
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    with hold(tmp_path) as first, hold(tmp_path) as second:
        assert (first, second) == (True, False)
    with hold(tmp_path) as again:
        assert again


def test_a_saved_state_dict_is_what_torch_loads(tmp_path):
    model = nn.Linear(2, 3)
    torch_save(model.state_dict(), tmp_path / "a.pt")
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())
