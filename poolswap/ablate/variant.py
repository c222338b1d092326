"""What names a variant of a study: columns of the report with their values, such as "to=soft, layers=3"."""

from __future__ import annotations

import re

from poolswap.errors import InputError

COLUMNS = ("to", "layers", "order", "adapt", "paths")
_PARTS = re.compile(rf",(?=\s*(?:{'|'.join(COLUMNS)})\s*=)")  # an operator's options have commas too


def parse_variant(text: str, asked: str, example: str) -> tuple[tuple[str, str], ...]:
    """(column, value) of each part of the text; `asked` and `example` are for the error. Raises InputError."""
    found = []
    for part in _PARTS.split(text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value or name not in COLUMNS:
            raise InputError(f"{asked}: {part.strip()!r} is not one of {', '.join(COLUMNS)} with its value", example)
        found.append((name, value))
    return tuple(found)
