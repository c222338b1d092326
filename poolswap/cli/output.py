"""What a command prints: data on stdout, everything a person reads beside it on stderr."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Annotated, ClassVar, TextIO

import typer

from poolswap.cli.document import plain
from poolswap.cli.table import affordable, fitted_table, folded_prose, plain_table
from poolswap.errors import visible

Advance = Callable[[int], None]

_BOLD, _RED, _YELLOW, _CYAN = "1", "1;31", "1;33", "1;36"
_LONGEST_ERROR = 2000
_SECONDS_BETWEEN_PROGRESS_LINES = 30.0

_data_stream: TextIO | None = None


@contextmanager
def data_only_stdout() -> Iterator[None]:
    """Send every `print` of the block to stderr: what a library or a model file prints must not end up in the data."""
    global _data_stream
    before, _data_stream = _data_stream, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _data_stream = before


@dataclass
class Output:
    """The two streams of one command, and what its user wants to see there.

    `document` prints with `--json` only; `table` and `line` print without it only. So a command calls both and never
    asks.
    """

    panel: ClassVar[str] = "Output"

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document and no other data.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing on stderr but errors.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more: torch's names of layers, all rows.")] = (
        False
    )
    _data: TextIO = field(default_factory=lambda: _data_stream or sys.stdout, init=False)
    _documents: int = field(default=0, init=False)

    @property
    def whole(self) -> bool:
        """Whether a long table is wanted whole: a person asked for more, or it goes to a pipe or a file."""
        return self.verbose or not self._data.isatty()

    def document(self, document: object) -> None:
        """The command's whole result as JSON: pydantic models, dataclasses, paths and enums are converted."""
        if not self.json:
            return
        self._documents += 1
        if self._documents > 1:
            raise RuntimeError("a command prints one JSON document; this is its second")
        self._write(dumps(plain(document), indent=2, allow_nan=False))

    def table(
        self, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]], spare: Sequence[str] = ()
    ) -> None:
        """Rows under column names; the title is a note. `-` is an empty cell; nothing is wrapped in a pipe.

        A terminal that is too narrow does without the columns in `spare`, the first of them first; the last thing that
        it folds is a path.
        """
        if self.json:
            return
        if title:
            self.note(title)
        cells = [[_cell(value) for value in row] for row in rows]
        right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
        if not self._data.isatty():
            self._write(plain_table([list(columns), *cells], right))
            return
        width, lines = shutil.get_terminal_size().columns, [list(columns), *cells]
        shown = affordable(lines, [columns.index(name) for name in spare], width)
        lines = [[line[i] for i in shown] for line in lines]
        paths = [i for i, name in enumerate(lines[0]) if name == "path"]
        head, _, body = fitted_table(lines, [right[i] for i in shown], width, paths).partition("\n")
        self._write(f"{_styled(head, _BOLD, self._data)}\n{body}".rstrip("\n"))
        if hidden := [name for i, name in enumerate(columns) if i not in shown]:
            self.note(f"not shown in this narrow a window: {', '.join(hidden)}")

    def line(self, text: str) -> None:
        """One line of data."""
        if not self.json:
            self._write(visible(text))

    def note(self, text: str) -> None:
        """What a person wants to know beside the data: a summary, a title, where a file went."""
        if not self.quiet:
            _say(text)

    def hint(self, text: str) -> None:
        """What to type next."""
        if not self.quiet:
            _say(text, "hint", _CYAN)

    def warn(self, text: str) -> None:
        """What a person must not miss; the command goes on."""
        if not self.quiet:
            _say(text, "warning", _YELLOW)

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Advance]:
        """A bar on a terminal, a line now and then elsewhere. Yields `advance(steps)`."""
        if self.quiet:
            yield lambda steps: None
        elif sys.stderr.isatty():
            with _progress_bar(description, total) as advance:
                yield advance
        else:
            yield _progress_lines(description, total)

    def _write(self, text: str) -> None:
        _emit(text, self._data)


def error(message: str, hint: str | None = None) -> None:
    """The last words of a command that failed: one line what is wrong, one line what to do."""
    _say(_shortened(" ".join(message.split())), "error", _RED)
    if hint:
        _say(hint, "hint", _CYAN)


def _shortened(message: str) -> str:
    """The message, its middle left out where a file made it longer than anybody reads."""
    half = _LONGEST_ERROR // 2
    return message if len(message) <= _LONGEST_ERROR else f"{message[:half]} ... {message[-half:]}"


def silence(stream: TextIO) -> None:
    """Point a stream whose reader has gone at nothing, so that later writes and the last flush are quiet."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(" ".join(str(value).split()))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _say(text: str, label: str | None = None, colour: str = "") -> None:
    stream, head = sys.stderr, f"{label}:" if label else ""
    said = f"{head} {visible(text)}" if label else visible(text)
    if stream.isatty():
        said = folded_prose(said, shutil.get_terminal_size().columns)
    if label:
        said = said.replace(head, _styled(head, colour, stream), 1)
    _emit(said, stream)


def _styled(text: str, style: str, stream: TextIO) -> str:
    plain_terminal = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain_terminal else f"\033[{style}m{text}\033[0m"


def _emit(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # the reader has what it wanted; the command's own verdict still counts
        silence(stream)


@contextmanager
def _progress_bar(description: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(visible(description)), total=total)
        yield lambda steps: bar.advance(task, steps)


def _progress_lines(description: str, total: int | None) -> Advance:
    done, last = 0, time.monotonic()
    _say(f"{description} ...")

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last >= _SECONDS_BETWEEN_PROGRESS_LINES:
            last = time.monotonic()
            _say(f"{description}: {done}/{total}" if total else f"{description}: {done}")

    return advance
