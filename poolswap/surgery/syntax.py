"""What a selector may look like, known before there is a model to apply it to."""

from __future__ import annotations

import re

from poolswap.errors import InputError, nearest

_NUMBER = re.compile(r"#[1-9]\d{0,8}")
_KINDS = ("max", "avg")
ENDS = ("first", "last", "all")


def parts_of(selector: str) -> list[str]:
    """The parts of `first:2,#5`. Raises InputError for an empty one, and for what can be no selector of any model."""
    parts = [part.strip() for part in selector.split(",")]
    if not all(parts):
        raise InputError(f"the selector {selector!r} has an empty part", "write for example layers='first:2,#5'")
    for part in parts:
        if part.startswith("#") and not _NUMBER.fullmatch(part):
            raise InputError(f"the selector {part!r} is no number of a site", "write for example layers='#1'")
        if part.startswith(("first:", "last:")) and not re.fullmatch(r"\w+:\d{1,9}", part):
            raise InputError(f"the selector {part!r} needs a number", f"layers={part.partition(':')[0]}:2")
    return parts


def misspelt(selector: str) -> bool:
    """Whether a part may be meant for `first`, `last` or `all`, which only the model's paths can tell."""
    return any(part not in ENDS and nearest(part, ENDS) for part in parts_of(selector))


def check_selector(selector: str) -> None:
    """Raise InputError for a selector that is wrong whatever the model: badly written, or a kind of pooling."""
    for part in parts_of(selector):
        if part in _KINDS:
            raise InputError(f"{part!r} is a kind of pooling, not a selector", f"op={part}")
