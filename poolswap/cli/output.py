"""What a command prints: data on stdout, everything a person reads beside it on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, TextIO

import typer

from poolswap.cli.document import plain

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing on stderr but errors.")]

Advance = Callable[[int], None]

_RED, _YELLOW, _CYAN = "31", "33", "36"
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


class Output:
    """The two streams of one command.

    `json` prints with `--json` only; `table` and `line` print without it only. So a command calls both and never asks.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.as_json = json
        self.quiet = quiet
        self._data = _data_stream or sys.stdout
        self._documents = 0

    def json(self, document: object) -> None:
        """The command's whole result as JSON: pydantic models, dataclasses, paths and enums are converted."""
        if not self.as_json:
            return
        self._documents += 1
        if self._documents > 1:
            raise RuntimeError("a command prints one JSON document; this is its second")
        self._write(json.dumps(plain(document), indent=2, allow_nan=False))

    def table(self, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Rows under column names; the title is a note. In a pipe: aligned, never wrapped, `-` for an empty cell."""
        if self.as_json:
            return
        if title:
            self.note(title)
        cells = [[_cell(value) for value in row] for row in rows]
        right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
        if self._data.isatty():
            self._rich_table(columns, cells, right)
        else:
            self._write(plain_table(columns, cells, right))

    def line(self, text: str) -> None:
        """One line of data."""
        if not self.as_json:
            self._write(text)

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

    def _rich_table(self, columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, is_right in zip(columns, right, strict=True):
            table.add_column(Text(name), justify="right" if is_right else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        Console(file=self._data, highlight=False).print(table)


def error(message: str, hint: str | None = None) -> None:
    """The last words of a command that failed: one line what is wrong, one line what to do."""
    _say(" ".join(message.split()), "error", _RED)
    if hint:
        _say(hint, "hint", _CYAN)


def silence(stream: TextIO) -> None:
    """Point a stream whose reader has gone at nothing, so that later writes and the last flush are quiet."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def plain_table(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Columns two spaces apart, each as wide as its widest cell; no trailing space."""
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    aligned = (
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split())


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _say(text: str, label: str | None = None, colour: str = "") -> None:
    stream = sys.stderr
    if label:
        plain_terminal = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
        text = f"{label}: {text}" if plain_terminal else f"\033[1;{colour}m{label}:\033[0m {text}"
    _emit(text, stream)


def _emit(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:  # the reader has what it wanted; the command's own verdict still counts
        silence(stream)


@contextmanager
def _progress_bar(description: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
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
