"""What is typed as one word -> values: sizes, and pairs of a name and a value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from poolswap.errors import InputError


def parse_pairs(items: Sequence[str], flag: str) -> dict[str, Any]:
    """["key=value", ...] as `flag` takes them -> {key: value}; values are JSON, anything else is a string.

    Raises InputError.
    """
    parsed = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(f"{flag} {item!r} is not KEY=VALUE", f"write for example {flag} drop_rate=0.1")
        try:
            parsed[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            parsed[key.strip()] = value
    return parsed


def parse_input_size(text: str) -> tuple[int, ...]:
    """ "3,224,224", "1,4000" or "3,16,112,112" -> a tuple of two to four positive ints. Raises InputError."""
    parts = text.split(",")
    if len(parts) not in (2, 3, 4) or not all(re.fullmatch(r"[1-9]\d{0,8}", part.strip()) for part in parts):
        raise InputError(
            f"--input-size {text!r} is not C,H,W, C,L or C,T,H,W", "write for example --input-size 3,224,224"
        )
    return tuple(int(part) for part in parts)
