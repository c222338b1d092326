"""Errors for the person who reads them: what is wrong, what to type next, and the exit code it means."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    INTERNAL = 3
    NOTHING_TO_REPLACE = 5
    INTERRUPTED = 130


def first_line(error: BaseException) -> str:
    """What an exception of somebody else's says, in one line: its first, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class PoolswapError(Exception):
    """A failure that its reader can act on: `message` says what is wrong in one line, `hint` what to do next."""

    exit_code = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(PoolswapError):
    """What was asked for cannot be done: an unknown name, a bad file, an option that does not fit."""

    exit_code = ExitCode.USAGE


class MissingExtraError(InputError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", f"pip install 'poolswap[{extra}]'")


class CheckError(PoolswapError):
    """A check ran and did not hold: verify, a threshold, parity."""

    exit_code = ExitCode.CHECK_FAILED


class NothingToReplaceError(PoolswapError):
    """The model has no replaceable pooling site of the kind that was asked for."""

    exit_code = ExitCode.NOTHING_TO_REPLACE
