"""Seeds added until the intervals are narrow enough: when to look, and what each look may spend."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poolswap.ablate.stats import LEVEL
from poolswap.errors import InputError

_GROWTH = 2
_UNTIL = re.compile(r"\s*width\s*<\s*(\d+(?:\.\d*)?|\.\d+)\s*")


def parse_until(text: str) -> float:
    """ "width < 1" -> 1.0, the points of top-1 that each interval may be wide. Raises InputError."""
    match = _UNTIL.fullmatch(text)
    if match is None or not float(match[1]):
        raise InputError(f"until={text!r} is not a width", "write for example until='width < 1'")
    return float(match[1])


def looks(first: int, most: int) -> tuple[int, ...]:
    """After how many seeds to look: `first`, then twice as many each time, and last `most`."""
    found = [min(first, most)]
    while found[-1] < most:
        found.append(min(_GROWTH * found[-1], most))
    return tuple(found)


def level_at(seeds: int, first: int, most: int, level: float = LEVEL) -> float:
    """The level of the intervals at the look after this many seeds.

    Each look spends the part of 1 - level that its new seeds are of all: Lan and DeMets 1983, with the spending
    function that grows evenly. The looks' intervals all cover at once with probability `level` (Bonferroni), so the one
    at which a run stops does, whatever it stopped for: repeated confidence intervals (Jennison and Turnbull 1989).
    """
    before = max((look for look in looks(first, most) if look < seeds), default=0)
    return 1 - (1 - level) * (min(seeds, most) - before) / most


def wide_enough(widths: Sequence[float], until: float) -> bool:
    """Whether any interval is still wider than that."""
    return any(width >= until for width in widths)
