"""The library's hints name parameters, the command line's the flags that they are typed as; both exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from poolswap.cli.app import app
from poolswap.cli.speech import flags, to_flags

PACKAGE = Path(__file__).parents[2] / "poolswap"
ERRORS = {"InputError", "CheckError", "NothingToReplaceError", "BackendError", "MissingExtraError", "ValueError"}
COMMANDS = get_command(app).commands


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("replace it with force=True, or name another", "replace it with --force, or name another"),
        ("give weights='pretrained' or weights=FILE", "give --pretrained or --checkpoint FILE"),
        ("weights='my nets/a.pt'", "--checkpoint 'my nets/a.pt'"),
        ("input_size=(3, 224, 224)", "--input-size 3,224,224"),
        ("input_size=(C, H, W), or", "--input-size C,H,W, or"),
        ("lower lr=0.001 or set clip_grad=1", "lower --lr 0.001 or set --clip-grad 1"),
        ("freeze=['layer1.*']", "--freeze 'layer1.*'"),
        ("check num_classes=, in_chans= and model_args=", "check --num-classes, --in-chans and --model-arg"),
        ("no <OpOverload(op='aten.cat')>", "no <OpOverload(op='aten.cat')>"),  # torch's own words
        ("write lp:p=VALUE", "write lp:p=VALUE"),  # an operator's option is typed as it stands
    ],
)
def test_a_parameter_becomes_its_flag(said, typed):
    assert to_flags(said) == typed


def texts():
    """(file, line, text) of every string that an error of the package outside cli/ is made of, {} for what varies."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "cli" in path.relative_to(PACKAGE).parts:
            continue
        tree = ast.parse(path.read_text())
        hints = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Return | ast.IfExp)]
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") in ERRORS]
        for node in (*calls, *hints):
            if not isinstance(node, ast.Call) and not _is_hint(node):
                continue
            for part in ast.walk(node):
                if isinstance(part, ast.JoinedStr):
                    yield path.name, part.lineno, "".join(getattr(value, "value", "{}") for value in _literal(part))
                elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield path.name, part.lineno, part.value


def _is_hint(node):
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return isinstance(target, ast.Name) and "hint" in target.id.lower()


def _literal(joined):
    return [value if isinstance(value, ast.Constant) else ast.Constant("{}") for value in joined.values]


def parameters():
    """Every name that a function or a class of the library takes, or that a document of the user has a field of."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def test_every_hint_of_the_library_names_a_parameter_that_exists():
    known = parameters()
    for file, line, text in texts():
        for name in re.findall(r"(?<![\w:.,}])([a-z]\w+)=", re.sub(r"'[^']*'", "''", text)):
            assert name in known, f"{file}:{line}: {text}"


def test_the_library_types_no_flags_but_in_whole_commands():
    for file, line, text in texts():
        spoken, poolswap, command = text.partition("poolswap ")
        assert not re.search(r"(?<!\w)--[a-z]", spoken), f"{file}:{line}: {text}"
        if poolswap and re.search(r"--[a-z]", command):
            assert_parses(command, f"{file}:{line}: {text}")


def assert_parses(command, where):
    name, *arguments = shlex.split(command)
    known = {flag for parameter in COMMANDS[name].params for flag in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("-")} <= known, where


def test_what_the_command_line_says_of_itself_exists():
    for path in (PACKAGE / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS:
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", ast.unparse(node)):
                    assert flag in {*flags().values(), "--help"}, f"{path.name}:{node.lineno}: {flag}"
