"""Seeds added until the intervals are narrow enough: when to look, and what each look may spend."""

from __future__ import annotations

import re
from collections.abc import Iterable

from poolswap.ablate.stats import LEVEL
from poolswap.ablate.study import Study, Until
from poolswap.errors import InputError

_GROWTH = 2
_UNTIL = re.compile(r"\s*width\s*<\s*(\d{1,3}(?:\.\d{0,9})?)\s*")


def parse_until(text: str) -> float:
    """ "width < 1" -> 1.0, the points of top-1 that each interval may be wide. Raises InputError."""
    match = _UNTIL.fullmatch(text)
    if match is None or not float(match[1]):
        raise InputError(f"until={text!r} is not a width", "write for example until='width < 1'")
    return float(match[1])


def begin(study: Study, until: str, most: int) -> Study:
    """The study, to be continued from its own seeds to at most `most`. Raises InputError."""
    width, first = parse_until(until), len(study.seeds)
    if len(study.weights) > 1:
        raise InputError("until= adds seeds, and each has a base of its own", "give one base, or no until=")
    if not 2 <= first < most:
        raise InputError(
            f"until={until!r} adds seeds to at most {most}, and begins with {first}",
            f"seeds={max(first, 2)}, most_seeds={max(4 * first, 20)}",
        )
    if set(study.adapt) == {"none"}:
        raise InputError("until= adds seeds, and adapt='none' has none", "train something: adapt='finetune'")
    return study.model_copy(update={"until": Until(width=width, first=first, most=most)})


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


def level_of(study: Study) -> float:
    """The level of the intervals of a report on this study, as far as it has got."""
    return level_at(len(study.seeds), study.until.first, study.until.most) if study.until else LEVEL


def continued(study: Study, widths: Iterable[float]) -> Study | None:
    """The study with the seeds of the next look, given how wide its intervals are; None where it is time to stop."""
    if study.until is None or not any(width >= study.until.width for width in widths):
        return None
    count = next((look for look in looks(study.until.first, study.until.most) if look > len(study.seeds)), None)
    if count is None:
        return None
    start = max(study.seeds) + 1
    return study.model_copy(update={"seeds": (*study.seeds, *range(start, start + count - len(study.seeds)))})
