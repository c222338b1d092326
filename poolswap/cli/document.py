"""Results as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path


def plain(value: object) -> object:
    """The value in dicts, lists, strings, numbers, booleans and None.

    JSON has no NaN and no infinity: they become the strings "nan", "inf" and "-inf". Raises TypeError for anything
    that has no obvious form.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if dump := getattr(value, "model_dump", None):  # a pydantic model, without importing pydantic
        return plain(dump())
    raise TypeError(f"{type(value).__name__} has no JSON form")
