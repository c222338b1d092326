"""The architectures of timm and torchvision, and how many pooling layers each has: a table, so that no model is built.

`known.csv` is made from the sweep over all of them, `benchmarks/coverage.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files

from poolswap.errors import InputError, nearest


@dataclass(frozen=True)
class KnownModel:
    """A name as `load_model` takes it, and its sites that pool a window: `functional` of them are calls."""

    name: str
    sites: int
    functional: int


def known_models(pattern: str | None = None) -> list[KnownModel]:
    """Every architecture whose name contains the pattern, or matches it where it is a glob; all without a pattern.

    timm's names stand alone, torchvision's as torchvision:NAME. Raises InputError where none matches.
    """
    models = [
        KnownModel(name, int(sites), int(calls)) for name, sites, calls in (row.split(",") for row in _rows()[2:])
    ]
    if pattern is None:
        return models
    word = pattern.lower().removeprefix("timm:")
    glob = word if any(sign in word for sign in "*?[") else f"*{word}*"
    found = [model for model in models if fnmatchcase(model.name, glob)]
    if not found:
        hint = nearest(pattern, [model.name for model in models]) or "poolswap models lists them all"
        raise InputError(f"no architecture of timm or torchvision matches {pattern!r}", hint)
    return found


def known_versions() -> str:
    """What the table is of, as "timm 1.0.31, torchvision 0.29.1"."""
    return _rows()[0].removeprefix("# ")


def _rows() -> list[str]:
    return (files("poolswap.models") / "known.csv").read_text(encoding="utf-8").splitlines()
