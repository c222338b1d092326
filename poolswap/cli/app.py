"""The `poolswap` program: its commands, and what happens when one fails."""

from __future__ import annotations

import inspect as introspection
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from poolswap.cli import (
    ablate,
    bench,
    convert,
    env,
    errors,
    evaluate,
    export,
    finetune,
    images,
    inspect,
    models,
    operators,
    recalibrate,
    report,
    search,
    verify,
)
from poolswap.cli.backend import BackendName, BackendOption, using
from poolswap.cli.groups import Command, Group, expanded, literally, option, with_parameters
from poolswap.cli.output import data_only_stdout, silence
from poolswap.errors import ExitCode
from poolswap.versions import own_version

# In the order of --help. A command imports torch and its friends inside the function: --help must stay instant.
_MODULES = (
    models,
    inspect,
    convert,
    verify,
    evaluate,
    recalibrate,
    finetune,
    ablate,
    search,
    report,
    export,
    operators,
    images,
    bench,
    env,
)
COMMANDS: dict[str, Callable[..., None]] = {}
EXAMPLES: dict[str, tuple[str, ...]] = {}
for _module in _MODULES:
    _name = _module.__name__.rpartition(".")[2]
    COMMANDS[_name], EXAMPLES[_name] = getattr(_module, _name), _module.EXAMPLES

# Those that compute with SoftPool, and so take --backend.
COMPUTING = frozenset(COMMANDS) - {"models", "inspect", "report", "operators", "env"}

app = typer.Typer(
    name="poolswap",
    cls=Group,
    help="Replace the pooling layers of timm and torchvision models with SoftPool, and measure what the swap did.",
    epilog="Data goes to stdout, all else to stderr. Exit codes: 0 ok, 1 a check failed, 2 usage or input, "
    "3 internal error, 5 nothing to replace, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Arguments default to the program's own; none of them mean --help."""
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, errors.interrupt)
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    finally:
        if arguments is None:  # what is done is done: an interruption from here on finds only libraries' own endings
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(arguments: Sequence[str]) -> int:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: no character may end a command
    try:
        result = app(list(arguments) or ["--help"], prog_name="poolswap", standalone_mode=False)
        if sys.stdout:  # None where the caller closed it
            sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:
        return errors.report(error)
    return result if isinstance(result, int) else ExitCode.OK  # Typer returns the code of a typer.Exit


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"poolswap {own_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def register(name: str, command: Callable[..., None], examples: Sequence[str] = ()) -> None:
    """Add a command: its prints go to stderr, its exceptions become a line, a hint and an exit code."""
    flat = expanded(command)

    @wraps(flat)
    def run(*, backend: BackendName | None = None, **kwargs: Any) -> None:
        try:
            with data_only_stdout(), using(backend):
                flat(**kwargs)
        except typer.Exit:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(errors.report(error)) from error

    parameters = list(introspection.signature(flat).parameters.values())
    if name in COMPUTING:
        parameters.append(option("backend", BackendOption, None))
    foot = "\n".join(["", "Examples:", *(f"  {example}" for example in examples)]) if examples else None
    about = introspection.getdoc(command) or ""
    app.command(name, cls=Command, help=literally(about), epilog=literally(foot) if foot else None)(
        with_parameters(run, parameters)
    )


for _name, _command in COMMANDS.items():
    register(_name, _command, EXAMPLES[_name])
