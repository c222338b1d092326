"""What the documentation tells people to type: it parses, and runs in its page's order in an empty folder."""

import json
import os
import pydoc
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import front
import pytest
import site_pages
import studies
from cpu_report import between_markers
from typer.main import get_command

from poolswap.cli.app import app, main
from poolswap.operators import OPERATORS
from poolswap.operators.registry import parse_operator

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", flags=re.DOTALL | re.MULTILINE)
CONNECTORS = {"&&", "||", "|", ";"}
COMMANDS = get_command(app).commands


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    text: str


class Typed(NamedTuple):
    """One command line of a block, and what the page says that it prints."""

    where: str
    line: str
    printed: str = ""


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(text.count("\n", 0, match.start()) + 1, match[2], match[3].replace("\n" + match[1], "\n"))
        for match in FENCE.finditer(text)
    ]


def typed(page: Path) -> Iterator[Typed]:
    """The command lines of a page: those of its bash blocks, and those after a `$` of its console blocks."""
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "console":
            for command in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                line, _, printed = command.partition("\n")
                yield Typed(where, line, printed)
        elif block.language == "bash":
            lines = block.text.replace("\\\n", " ").splitlines()
            yield from (Typed(where, line) for line in lines if line.strip() and not line.startswith("#"))


def words(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, without what it sets for them and where their output goes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in (*lexer, ";"):
        if word not in CONNECTORS:
            command.append(word)
        elif command:
            if ">" in command:
                del command[command.index(">") :]
            while re.match(r"\w+=", command[0]):
                del command[0]
            yield command
            command = []


PAGES_TYPED = {page.name: list(typed(page)) for page in PAGES}
LINES = [line for lines in PAGES_TYPED.values() for line in lines]


def parse_poolswap(command: str, *arguments: str) -> None:
    """As the program parses it, short of running it; `evn` is the page's example of an unknown command."""
    if command not in ("evn", "--version", "--help"):
        COMMANDS[command].make_context(command, list(arguments))


def parse_pip(install: str, *arguments: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\w+", " ".join(re.findall(r"\[(.*?)\]", " ".join(arguments))))
    assert (install, set(named) - set(extras)) == ("install", set())


def parse_python(*arguments: str) -> None:
    if arguments[0] != "-m":
        exists(arguments[0])
    elif arguments[1] == "pytest":
        parse_pytest(*arguments[2:])
    else:
        assert arguments[1] in ("venv", "json.tool", "poolswap")


def parse_pytest(*arguments: str) -> None:
    for argument in arguments:
        file, _, test = argument.partition("::")
        if file.startswith("tests"):
            assert f"def {test}" in exists(file) if test else exists(file) is not None


def exists(path: str) -> str:
    file = ROOT / path
    assert file.exists(), path
    return file.read_text() if file.is_file() else ""


def parse_words(*command: str) -> None:
    PARSERS[command[0]](*command[1:])


PARSERS = {
    "poolswap": parse_poolswap,
    "pip": parse_pip,
    "python": parse_python,
    "pytest": parse_pytest,
    "benchmarks/check_kernel.sh": lambda *_: exists("benchmarks/check_kernel.sh"),
    ".ci/run": lambda *_: exists(".ci/run"),
    "mkdocs": lambda *_: exists("mkdocs.yml"),
    "ruff": lambda *_: None,
    "mypy": lambda *_: None,
    "export": lambda *_: None,
    ".": lambda *_: None,
    "hf": lambda *_: None,
    "sbatch": lambda _array, _wrap, line: [parse_words(*command) for command in words(line)],
    "compute-sanitizer": lambda *arguments: parse_words(*arguments[arguments.index("python") :]),
}


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.where} {line.line[:40]}")
def test_every_command_of_the_documentation_parses(line: Typed) -> None:
    for command in words(line.line):
        parse_words(*command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block without a language could hide commands from these tests."""
    assert {block.language for block in blocks(page)} <= {"bash", "console", "python", "yaml", "text"}


# Why a command is not run here, by what is in it.
NOT_HERE = {
    r"^pip |^python -m venv": "installs",
    r"\bpytest\b|^ruff|^mypy|^mkdocs|^\.ci/run|^export ": "is the check itself",
    r"compute-sanitizer|-m gpu": "needs a GPU",
    r"--pretrained|photos/": "needs weights from the network and somebody's photographs",
    r"^poolswap report run(/test| --check)|--confirm": "is of the run before, which needs the network",
    r"(photographs|digits)[\w-]*\.yaml|photo_nets\.py|averaging_vgg|^poolswap search detector/": "takes minutes",
    r"^poolswap report (resnet|vgg|densenet|operators|back|anneal|heads|digits)\b": "is of a study that takes minutes",
    r"sbatch|--engine ray": "needs a cluster",
    r"\byolo": "needs ultralytics",
    r"^hf |hf-hub:": "needs the network, and an account",
    r"benchmarks/\w+\.(py|sh)( |$)": "takes minutes, and writes into the repository",
}
LONG = {"ablate.md", "adapt.md", "tutorial.md", "benchmarks.md", "export.md", "images.md", "operators.md", "search.md"}
# In the default run these pages go the same way with less: a small network of the same pools, fewer rounds. As they are
# printed they are run with the long ones.
SHORTENED = {"README.md", "howto.md"}
SMALLER = {"resnet50d": "test_resnet", "8,64,56,56": "1,4,14,14"}
LESS = {
    "ablate": ["--seeds", "1", "--adapt", "none,finetune"],
    "bench": ["--repeats", "2", "--no-compile"],
    "finetune": ["--epochs", "1"],
    "images": ["photo.jpg"],
    "operators": ["--no-cost"],
}


def runs():
    for page in (page for page in PAGES if any(typed(page))):
        if page.name in SHORTENED:
            yield pytest.param(page, True, id=f"{page.name}, shortened")
        slow = page.name in {*LONG, *SHORTENED}
        yield pytest.param(page, False, id=page.name, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("page", "shortened"), list(runs()))
def test_the_commands_of_a_page_run_in_its_order(page, shortened, tmp_path, monkeypatch, capsys, subtests):
    monkeypatch.chdir(tmp_path)
    if shortened:
        monkeypatch.setattr("poolswap.bench.values._CROP", 32)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    (tmp_path / "photo.jpg").symlink_to(ROOT / "docs/images-chelsea.png")
    for block in blocks(page):
        if block.language == "python" and (name := re.match(r"# (\w+\.py)\n", block.text)):
            (tmp_path / name[1]).write_text(block.text)
    for where, line, printed in PAGES_TYPED[page.name]:
        with subtests.test(where, line=line):
            for pattern, reason in NOT_HERE.items():
                if re.search(pattern, line):
                    pytest.skip(reason)
            capsys.readouterr()
            code, output = run(shorter(line) if shortened else line, capsys)
            assert code == (2 if "error:" in printed else 0), output
            if printed:
                assert masked(output) == masked(printed)


def shorter(line):
    for usual, smaller in SMALLER.items():
        line = line.replace(usual, smaller)
    command = shlex.split(line, comments=True)
    return shlex.join([*command, *LESS.get(command[1], [])])


def run(line, capsys):
    """(exit code, what it printed): in this process, or by a shell where the line needs one."""
    (command, *more) = words(line)
    if more or ">" in line.split("#")[0]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(["bash", "-ec", line], env={**os.environ, "PATH": path}, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    code = main(command[1:])
    captured = capsys.readouterr()
    return code, captured.err + captured.out


def masked(text):
    """The words in any order of the two streams, whatever numbers the machine gave."""
    return sorted(re.sub(r"\d+\.\d+", "N", re.sub(r"\s+", " ", line)).strip() for line in text.splitlines())


@pytest.mark.parametrize(
    "page",
    # The factories of libraries.md need the libraries: tests/models/test_libraries.py runs them.
    [p for p in PAGES if p.name != "libraries.md" and any(b.language == "python" for b in blocks(p))],
    ids=lambda p: p.name,
)
def test_the_python_of_a_page_works(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), {"__name__": page.stem})


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "tour"}
    for cell in json.loads((ROOT / "docs/tour.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "tour.ipynb", "exec"), space)


def test_the_front_page_says_what_the_committed_runs_say():
    said = between_markers("front").search((ROOT / "README.md").read_text())[0]
    assert front.table(front.studies()) in said
    assert front.models(front.rows_of(front.MODELS)) in said


def test_the_tables_of_studies_are_those_of_their_reports():
    for name, files in studies.STUDIES.items():
        page = studies.page_of(name).read_text()
        assert studies.table(studies.rows_of(studies.csv_of(name))) in between_markers(name).search(page)[0]
        assert [file for file in files if not re.search(rf"\(ablate-{name}[-.]{re.escape(file)}\)", page)] == []


def test_the_site_has_a_section_for_every_command_option_and_operator():
    commands = site_pages.commands()
    for name, command in COMMANDS.items():
        assert f"\n## {name}\n" in f"\n{commands}"
        assert [f for p in command.params for f in p.opts if f.startswith("--") and f"`{f}" not in commands] == []
    cards = site_pages.cards()
    assert re.findall(r"^## (\w+)$", cards, flags=re.MULTILINE) == list(OPERATORS)
    for line in re.findall(r"^poolswap .*$", cards, flags=re.MULTILINE):
        parse_words(*shlex.split(line))
        parse_operator(shlex.split(line)[4])


def test_the_site_shows_a_bar_in_a_table_as_github_does():
    """Python-Markdown would show the backslash that keeps the bar from ending the cell, in code alone."""
    row = "| `beta=1\\|learn<x` | `plain` | mean \\| max |"
    assert site_pages.on_page_markdown(f"`a\\|b`\n{row}") == (
        "`a\\|b`\n| <code>beta=1&#124;learn&lt;x</code> | `plain` | mean \\| max |"
    )


@pytest.mark.parametrize("page", sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md")]), ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_page_has_its_place_in_the_site():
    """mkdocs says so too, where it is installed."""
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md"))


def test_the_site_has_its_style_and_marks_the_blocks_that_it_wraps():
    """mkdocs says nothing of a style that is missing, or of a class that no block has."""
    settings = (ROOT / "mkdocs.yml").read_text()
    styles = re.search(r"^extra_css: \[(.*)\]$", settings, flags=re.MULTILINE)
    assert styles is not None
    assert [name for name in styles[1].split(", ") if not (ROOT / "docs" / name).is_file()] == []
    assert "pygments_lang_class: true" in settings  # .language-bash


REFERENCE = "\n".join(page.read_text() for page in ROOT.glob("docs/reference/*.md"))
DOCUMENTED = re.findall(r"^::: ([\w.]+)", REFERENCE, flags=re.MULTILINE)
OFFERED = sorted({room for room in DOCUMENTED if hasattr(pydoc.locate(room), "__all__")} | {"poolswap"})


@pytest.mark.parametrize("room", OFFERED)
def test_every_public_name_says_what_it_is(room):
    """What the reference shows of it: its own docstring, not one that it inherited."""
    module = pydoc.locate(room)
    public = {name: getattr(module, name) for name in module.__all__}
    silent = [
        name for name, value in public.items() if callable(value) and not vars(value).get("__doc__", value.__doc__)
    ]
    assert silent == []


def test_every_package_with_public_names_is_in_the_reference():
    packages = {path.parent.name for path in ROOT.glob("poolswap/*/__init__.py") if "__all__" in path.read_text()}
    assert packages <= {name.removeprefix("poolswap.") for name in DOCUMENTED}
