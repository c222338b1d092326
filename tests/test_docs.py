"""What the README tells people to type works, in its order, in an empty folder."""

import re
import shlex
from pathlib import Path

import pytest

from poolswap.cli.app import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands():
    lines = (line for block in blocks("bash") for line in block.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("poolswap ")]


def test_every_command_of_the_readme_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(commands()) == 17
    for arguments in commands():
        if arguments[0] == "convert" and "--dry-run" not in arguments:
            arguments.append("--force")
        if arguments[0] == "bench":
            arguments += ["--repeats", "2", "--no-compile"]
        assert main(arguments) == 0, arguments
    assert (tmp_path / "resnet50d-softpool.safetensors").is_file()


def test_the_python_of_the_readme_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("page", sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]), ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
