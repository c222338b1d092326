"""The program as a whole: it answers at once, and every failure is a line, a hint and its own exit code."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer
from typer.main import get_command

import poolswap
from poolswap.cli import app as program
from poolswap.cli.app import COMMANDS, EXAMPLES, app, main
from poolswap.cli.output import Output
from poolswap.errors import CheckError, InputError, MissingExtraError, NothingToReplaceError
from poolswap.ops import BackendError

HEAVY = ("torch", "torchvision", "timm", "numpy", "safetensors", "yaml")  # pydantic is Typer's own to import
INSTANT = 3  # times the help of Typer's smallest application, which takes 0.2 s; importing torch alone takes ten

Run = Callable[[BaseException], int]


@pytest.fixture
def register(monkeypatch):
    """`register(name, function)`, undone after the test."""
    monkeypatch.setattr(program.app, "registered_commands", [*program.app.registered_commands])
    return program.register


@pytest.fixture
def fail_with(register, monkeypatch) -> Run:
    """Run a command that raises, and return the exit code."""
    monkeypatch.delenv("POOLSWAP_DEBUG", raising=False)

    def run(error: BaseException) -> int:
        def fail() -> None:
            raise error

        register("fail", fail)
        return main(["fail"])

    return run


BARE = "import typer; app = typer.Typer(); app.command()(lambda number=1: None); app(['--help'])"


def cpu_seconds(*command: str, **environment: str) -> float:
    """CPU seconds of one run; one thread that never sleeps takes that long on a free machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env={**os.environ, **environment})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def share_of_bare_help(*arguments: str, tries: int = 5, **environment: str) -> float:
    """What `poolswap ARGUMENTS` takes, as a share of the help of Typer's smallest application.

    Of each the fastest run: on a busy machine seconds would measure the neighbours. Stops at the first that is instant.
    """
    ours = bare = float("inf")
    for _ in range(tries):
        bare = min(bare, cpu_seconds("-c", BARE))
        ours = min(ours, cpu_seconds("-m", "poolswap", *arguments, **environment))
        if ours < INSTANT * bare:
            break
    return ours / bare


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), *((name, "--help") for name in COMMANDS)])
def test_help_is_instant(arguments):
    assert share_of_bare_help(*arguments) < INSTANT


@pytest.mark.parametrize(("words", "expected"), [("poolswap en", "env"), ("poolswap env --js", "--json")])
def test_shell_completion_is_instant_and_complete(words, expected):
    environment = {
        "_POOLSWAP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    assert share_of_bare_help(**environment) < INSTANT
    done = subprocess.run(
        [sys.executable, "-m", "poolswap"], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.stdout.split() == [expected]


def test_help_of_every_command_imports_nothing_heavy():
    code = f"""
import sys
from poolswap.cli.app import COMMANDS, EXAMPLES, app, main
for name in COMMANDS:
    assert main([name, "--help"]) == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_importing_the_program_imports_neither_rich_nor_click():
    code = "import sys, poolswap.cli.app; print(sorted({'rich', 'click'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_prints_brackets_as_they_are(register, capsys):
    def export() -> None:
        """Needs pip install 'poolswap[onnx]'."""

    register("export", export)
    assert main(["export", "--help"]) == 0
    assert "poolswap[onnx]" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_summary_and_helps(name, capsys):
    assert main([name, "--help"]) == 0
    captured = capsys.readouterr()
    assert f"poolswap {name}" in captured.out
    assert captured.err == ""
    assert COMMANDS[name].__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_breaks_no_word_and_no_example_at_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert [line for line in EXAMPLES[name] if line not in shown] == []
    kinds = [param.type_descriptor for param in get_command(app).commands[name].params if not param.metavar]
    choices = ["|".join(map(str, kind.choices)) for kind in kinds if getattr(kind, "choices", None)]
    assert [words for words in choices if words not in shown] == []


def test_no_arguments_print_the_help(capsys):
    assert main([]) == 0
    assert "Usage: poolswap" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"poolswap {poolswap.__version__}\n"


SMALLER = "give smaller sizes, or the process more memory"
NO_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize(
    ("error", "code", "stderr"),
    [
        (
            InputError("no such model 'x'", "poolswap inspect y"),
            2,
            "error: no such model 'x'\nhint: poolswap inspect y\n",
        ),
        (InputError("two\nlines"), 2, "error: two lines\n"),
        (
            MissingExtraError("scikit-learn", "digits"),
            2,
            "error: scikit-learn is not installed\nhint: pip install 'scikit-learn>=1.7'\n",
        ),
        (CheckError("outputs differ"), 1, "error: outputs differ\n"),
        (NothingToReplaceError("no window pooling"), 5, "error: no window pooling\n"),
        (BackendError("no GPU"), 2, "error: no GPU\nhint: poolswap env\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (typer.Abort(), 130, "error: interrupted\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/y"),
            2,
            "error: /x/y: Permission denied\nhint: check the permissions, or choose another path\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: No space left on device\nhint: free some space, or write to another disk\n",
        ),
        (OSError("odd"), 2, "error: odd\n"),
        *((error, 2, f"error: there is not enough memory\nhint: {SMALLER}\n") for error in NO_MEMORY),
        (typer.BadParameter("must be positive"), 2, "error: invalid value: must be positive\nhint: poolswap --help\n"),
        (
            ZeroDivisionError("division by zero"),
            3,
            "error: internal error: ZeroDivisionError: division by zero\n"
            "hint: rerun with POOLSWAP_DEBUG=1 for the traceback, and report it\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_each_error_has_its_line_its_hint_and_its_exit_code(fail_with, capsys, error, code, stderr):
    assert fail_with(error) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == stderr


def test_an_interruption_has_a_line_of_its_own_behind_what_the_terminal_echoes(fail_with, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert fail_with(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\nerror: interrupted\n"


def test_a_traceback_only_on_demand(fail_with, capsys, monkeypatch):
    assert fail_with(RuntimeError("broken")) == 3
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("POOLSWAP_DEBUG", "1")
    assert main(["fail"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: internal error: RuntimeError: broken\nhint: please report it\n")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["env", "--jsn"], "no such option: --jsn", "did you mean --json?"),
        (["env", "x"], "unexpected extra argument", "poolswap env --help"),
        (["evn"], "'env'", "poolswap --help"),
        (["sum"], "missing argument 'n'", "poolswap sum --help"),
        (["sum", "x"], "n: must be a whole number", "poolswap sum --help"),
    ],
    ids=" ".join,
)
def test_usage_errors_are_one_line_and_a_hint(register, capsys, arguments, message, hint):
    def sum_up(n: int) -> None: ...

    register("sum", sum_up)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    error_line, hint_line = captured.err.splitlines()
    assert captured.out == ""
    assert error_line.startswith("error: ")
    assert message in error_line.lower()
    assert hint_line == f"hint: {hint}"


def talk(output: Output) -> None:
    """Use every way of saying something."""
    print("a library's chatter")
    output.note("note")
    output.warn("warning")
    output.hint("do this")
    output.line("line")
    output.table("title", ["a", "b"], [(1, "x")])
    with output.progress("working", 3) as advance:
        advance(1)
    output.document({"a": [1]})


def test_json_is_one_document_and_nothing_else_on_stdout(register, capsys):
    register("talk", talk)
    assert main(["talk", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [1]}
    assert "a library's chatter\nnote\nwarning: warning\nhint: do this\n" in captured.err


def test_only_data_is_on_stdout(register, capsys):
    register("talk", talk)
    assert main(["talk"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "line\na  b\n1  x\n"
    assert captured.err.startswith("a library's chatter\n")


def test_a_command_may_choose_its_exit_code(register):
    def leave() -> None:
        raise typer.Exit(1)

    register("leave", leave)
    assert main(["leave"]) == 1


def test_stdout_is_itself_again_after_a_command(fail_with, capsys):
    before = sys.stdout
    fail_with(InputError("x"))
    assert sys.stdout is before


def script(body: str) -> list[str]:
    """A process whose `poolswap body` runs these lines."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return [
        sys.executable,
        "-c",
        "import sys, time\nfrom poolswap.cli.app import main, register\nfrom poolswap.cli.output import Output\n"
        "from poolswap.errors import CheckError\n"
        f"def body():\n{lines}\nregister('body', body)\nsys.exit(main(['body']))",
    ]


def test_a_reader_that_goes_away_is_no_error_and_hides_none():
    body = "for _ in range(20000): Output().line('x' * 100)\nraise CheckError('differs')"
    process = subprocess.Popen(script(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert err == "error: differs\n"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_character_ends_a_command(encoding):
    body = "Output().line('3\\u00d73')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(script(body), capture_output=True, check=True, env=environment)
    assert done.stdout == "3\u00d73\n".encode(encoding, "backslashreplace")


def test_ctrl_c_is_130():
    # A caller that runs in the background hands down an ignored SIGINT.
    body = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    body += "print('ready', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen(script(body), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130
    assert err == "error: interrupted\n"


def test_an_interruption_that_a_library_swallows_is_no_internal_error():
    body = """
import os, signal, sys
from poolswap.cli import app
signal.signal(signal.SIGINT, signal.default_int_handler)
def swallow() -> None:
    "Try."
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        raise AttributeError("partially initialized module") from None
app.register("swallow", swallow)
sys.argv = ["poolswap", "swallow"]
sys.exit(app.main())
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_an_interruption_after_the_work_is_none():
    """Libraries do their own at the end of the process, and tell of an interruption there by a traceback."""
    late = "atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    program = f"import atexit, os, signal, sys; from poolswap.cli.app import main; {late}; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
