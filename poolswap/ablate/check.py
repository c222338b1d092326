"""A condition that a report must meet: parsed, never evaluated as code."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from poolswap.ablate.variant import parse_variant
from poolswap.errors import InputError

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_CHECK = re.compile(
    r"\s*(?P<metric>\w+)\s*(?P<operator>>=|<=|==|>|<)\s*(?P<bound>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
    r"(?:\s+for\s+(?P<filter>.+?))?\s*"
)
_EXAMPLE = "write for example check='forward_ratio < 1.2 for adapt=finetune, layers=5'"


@dataclass(frozen=True)
class Condition:
    """`metric operator bound`, for the rows whose columns have these values."""

    text: str
    metric: str
    operator: str
    bound: float
    only: tuple[tuple[str, str], ...]

    def failures(self, rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
        """The rows for which it does not hold, as for one without the number. Raises InputError where none is meant."""
        if rows and self.metric not in rows[0]:
            raise InputError(f"there is no column {self.metric!r}", f"the columns are {', '.join(rows[0])}")
        meant = [row for row in rows if all(str(row[name]) == value for name, value in self.only)]
        if not meant:
            raise InputError(f"check={self.text!r} is about no row of the report", "leave out, or correct, its 'for'")
        return [row for row in meant if not self._holds(row[self.metric])]

    def _holds(self, value: object) -> bool:
        return isinstance(value, int | float) and _OPERATORS[self.operator](value, self.bound)


def parse_check(text: str) -> Condition:
    """The check that the text says. Raises InputError."""
    match = _CHECK.fullmatch(text)
    if match is None:
        raise InputError(f"check={text!r} is not METRIC OPERATOR NUMBER", _EXAMPLE)
    only = parse_variant(match["filter"], f"check={text!r}", _EXAMPLE) if match["filter"] else ()
    return Condition(text.strip(), match["metric"], match["operator"], float(match["bound"]), only)
