"""Tables and notes as text: as wide as they are in a pipe, folded between words and at the dots of paths elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

_GAP = 2
# Behind a space, but for the one before a per cent; behind the dot, slash, colon, comma or plus of a path, a name or a
# list, and behind the bar of a choice; never inside a number.
_BREAKS = re.compile(r"(?<=\s)(?!%)|(?<=[./:,+])(?=[A-Za-z_])|(?<=[A-Za-z_][./])(?=\d)|(?<=\w\|)(?=[a-z])")
# Words with the space behind them. One are a number and its per cent, and what is copied: a quoted name, and a command
# up to the end of the text.
_WORDS = re.compile(r"(?:(?:poolswap|pip) [a-z]+ .*|'[^']*'\S*|\S+(?: %\S*)?)\s*|^\s+")


def plain_table(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Columns two spaces apart, each as wide as its widest cell; no trailing space. `right` columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = (
        (" " * _GAP).join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)


def affordable(lines: Sequence[Sequence[str]], spare: Sequence[int], width: int) -> list[int]:
    """The columns that are shown in `width`: all of them, or without the first of `spare`, as many as it takes."""
    shown = list(range(len(lines[0])))
    for column in spare:
        if _total([max(len(line[i]) for line in lines) for i in shown]) <= width:
            break
        shown.remove(column)
    return shown


def fitted_table(lines: Sequence[Sequence[str]], right: Sequence[bool], width: int, whole: Sequence[int] = ()) -> str:
    """The table in `width` columns, its widest cells folded; wider where a single word is.

    Columns in `whole` are folded last of all: paths, which a person copies.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(piece.rstrip()) for cell in column for piece in _BREAKS.split(cell)) for column in columns]
    for least in ([w if i in whole else word for i, (w, word) in enumerate(zip(widths, words, strict=True))], words):
        _shrink(widths, least, width)
    folded = [[_fold(_BREAKS.split(cell), w) for cell, w in zip(line, widths, strict=True)] for line in lines]
    return plain_table([list(part) for cells in folded for part in zip_longest(*cells, fillvalue="")], right)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _shrink(widths: list[int], least: Sequence[int], width: int) -> None:
    while _total(widths) > width:
        loose = [i for i, w in enumerate(widths) if w > least[i]]
        if not loose:
            break
        widths[max(loose, key=lambda i: widths[i])] -= 1


def folded_prose(text: str, width: int) -> str:
    """The text in lines of `width`, broken between words alone: a longer word or command is left to the terminal."""
    return "\n".join(_fold(_WORDS.findall(text), width))


def _fold(pieces: Sequence[str], width: int) -> list[str]:
    parts = [""]
    for piece in pieces:
        if parts[-1].strip() and len(parts[-1]) + len(piece.rstrip()) > width:
            parts.append("")
        parts[-1] += piece
    return [part.rstrip() for part in parts]
