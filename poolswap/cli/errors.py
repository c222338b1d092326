"""From an exception to one line, a hint and an exit code: the only place where a failure becomes text."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from typing import Any

import typer

from poolswap.cli import output
from poolswap.cli.speech import to_flags
from poolswap.errors import ExitCode, PoolswapError, first_line, in_words, nearest

DEBUG_VARIABLE = "POOLSWAP_DEBUG"

# Typer exports BadParameter but not its parent, the class of every usage error.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_interrupted = False

_QUOTED = re.compile(r"'([^']*)'")

_NO_MEMORY = ("DefaultCPUAllocator", "failed to map segment", "annot allocate memory", "bad_alloc")

_OS_HINTS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EACCES: "check the permissions, or choose another path",
    errno.EPERM: "check the permissions, or choose another path",
    errno.EROFS: "choose a path that can be written",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOENT: "check the path",
}


def interrupt(*_: object) -> None:
    """Ctrl-C. A library that swallows the exception, as some do while they are imported, fails of it a little later."""
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def report(error: BaseException) -> ExitCode:
    """Print what went wrong on stderr and return the exit code it means. Tracebacks only with POOLSWAP_DEBUG=1."""
    if debugging():
        traceback.print_exception(error, file=sys.stderr)
    message, hint, code = describe(error)
    if code == ExitCode.INTERRUPTED and sys.stderr.isatty():
        print(file=sys.stderr)  # the terminal has written ^C into this line
    output.error(to_flags(message), to_flags(hint) if hint else None)
    return code


def describe(error: BaseException) -> tuple[str, str | None, ExitCode]:
    """(message, hint, exit code) of any exception."""
    if isinstance(error, PoolswapError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, UsageError):
        return *_usage(error), ExitCode.USAGE
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", str(error) or None, ExitCode.INTERRUPTED
    if _lacks_memory(error):
        return "there is not enough memory", "give smaller sizes, or the process more memory", ExitCode.USAGE
    if _interrupted:
        return "interrupted", None, ExitCode.INTERRUPTED
    if isinstance(error, OSError):
        return first_line(error), _OS_HINTS.get(error.errno or 0), ExitCode.USAGE
    if _is_backend_error(error):
        return str(error), "poolswap env", ExitCode.USAGE
    hint = "please report it" if debugging() else f"rerun with {DEBUG_VARIABLE}=1 for the traceback, and report it"
    return f"internal error: {type(error).__name__}: {error}", hint, ExitCode.INTERNAL


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _usage(error: Any) -> tuple[str, str]:
    """What was typed wrong, in our words, and the nearest right word or where to read on."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    command = context.command_path if context else "poolswap"
    hint = f"{command} --help"
    choices = getattr(getattr(parameter, "type_descriptor", None), "choices", None)
    if typed := _QUOTED.search(error.message):
        if choices:
            hint = nearest(typed[1], map(str, choices)) or hint
        elif f"--{typed[1]}" in _flags_of(context):
            hint = f"{command} --{typed[1]}"  # poolswap version, poolswap help
    if parameter is not None and error.message:
        return f"{max(parameter.opts, key=len)}: {in_words(error.message).rstrip('.')}", hint
    message = str(error.format_message()).rstrip(".")
    if possible := getattr(error, "possibilities", None):
        message, hint = message.partition(" (Possible option")[0], f"did you mean {possible[0]}?"
    if hint.startswith(f"{command} --") and hint != f"{command} --help":
        message = message.partition(". Did you mean")[0]
    return message[:1].lower() + message[1:], hint


def _flags_of(context: Any) -> set[str]:
    return {flag for parameter in context.command.get_params(context) for flag in parameter.opts} if context else set()


def _lacks_memory(error: BaseException) -> bool:
    """By what torch, the loader of its libraries, and Python say: importing torch's class would import torch."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (
        isinstance(error, RuntimeError | ImportError | OSError) and any(said in str(error) for said in _NO_MEMORY)
    )


def _is_backend_error(error: BaseException) -> bool:
    """By module, not by class: importing the class would import torch, and it cannot be raised before that."""
    backend = sys.modules.get("poolswap.ops.backend")
    return backend is not None and isinstance(error, backend.BackendError)
