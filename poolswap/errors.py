"""Errors for the person who reads them: what is wrong, what to type next, and the exit code it means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from enum import IntEnum
from itertools import islice
from pathlib import Path

_LONGEST_WORD = 100
_MOST_FILES = 10_000


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
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no {error.filename}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# What a terminal obeys instead of showing it, names in a file among it: control characters, and marks that turn or end
# a line.
_OBEYED = (*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_SHOWN = {code: chr(code).encode("unicode_escape").decode() for code in _OBEYED}


def visible(text: str) -> str:
    """The text in one line, with escapes such as \\x1b for whatever a terminal would obey."""
    return text.translate(_SHOWN)


# What pydantic says of a value, and what a person would.
_LIMITS = {"less": "at most", "greater": "at least"}
_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^(Value error|Assertion failed), ", ""),
    (r"^Input should be a valid integer.*", "must be a whole number"),
    (r"^Input should be a valid (list|tuple).*", "must be a list"),
    (r"^Input should be a valid dictionary.*", "must be fields with values"),
    (r"^Input should be a valid (number|string|boolean).*", r"must be a \1"),
    (r"^(?:Tuple|List) should have at least 1 item .*", "is empty"),
    (r"^Input should be (less|greater) than or equal to (\S+)", lambda m: f"must be {_LIMITS[m[1]]} {m[2]}"),
    (r"^Input should be ", "must be "),
    (r"^Extra inputs are not permitted", "there is no such field"),
    (r"^Field required", "is missing"),
)


def in_words(message: str) -> str:
    """pydantic's message about a value, as a person would say it."""
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message


def closest(word: str, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """The known words that are closest to this one, at most `n` of them."""
    return get_close_matches(word[:_LONGEST_WORD], list(known), n, cutoff)  # no name is longer, a file's text may be


def nearest(word: str, known: Iterable[str], lead: str = "did you mean") -> str | None:
    """`did you mean first?` where a known word is close, or None."""
    close = closest(word, known, n=1)
    return f"{lead} {close[0]}?" if close else None


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
    """An optional dependency is not installed.

    The hint names the packages of the extra: they install wherever poolswap itself came from.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", f"pip install {' '.join(_packages_of(extra))}")


def _packages_of(extra: str) -> list[str]:
    """The requirements of an extra, each as a word of a shell; the extra of the checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, requires
    from shlex import quote

    try:
        declared = [line.partition(";") for line in requires("poolswap") or ()]
    except PackageNotFoundError:
        declared = []
    wanted = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    found = [quote(package.strip()) for package, _, marker in declared if wanted.search(marker)]
    return found or [quote(f".[{extra}]")]


def no_file(path: Path, otherwise: str) -> InputError:
    """The error where there is no such file: its hint is the file beside it that it may be, or `otherwise`."""
    beside = path.parent.iterdir() if path.parent.is_dir() else iter(())
    others = sorted(found.name for found in islice(beside, _MOST_FILES) if found.name != path.name)
    alike = closest(path.stem, dict.fromkeys(Path(name).stem for name in others))  # a long suffix makes all names alike
    close = closest(path.name, (name for name in others if Path(name).stem in alike), n=1, cutoff=0.0)
    return InputError(f"there is no file {path}", f"did you mean {path.parent / close[0]}?" if close else otherwise)


class CheckError(PoolswapError):
    """A check ran and did not hold: verify, a threshold, parity."""

    exit_code = ExitCode.CHECK_FAILED


class NothingToReplaceError(PoolswapError):
    """The model has no replaceable pooling site of the kind that was asked for."""

    exit_code = ExitCode.NOTHING_TO_REPLACE
