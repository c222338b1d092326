"""A condition that a report must meet: parsed, never evaluated as code."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from poolswap.ablate.stats import Verdict
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
    r"\s*(?P<metric>\w+)\s*(?P<operator>>=|<=|==|>|<)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"(?:\s+for\s+(?P<filter>.+?))?\s*"
)
_COUNTS = {"seeds", "paired", "failed", "missing", "layers"}
_END = re.compile(r"_(joint_)?(low|high)$")
_EXAMPLE = "write for example check='forward_ratio < 1.2 for adapt=finetune, layers=5'"


@dataclass(frozen=True)
class Condition:
    """`metric operator bound`, for the rows whose columns have these values."""

    text: str
    metric: str
    operator: str
    bound: float
    only: tuple[tuple[str, str], ...]

    def failures(self, rows: Sequence[Mapping[str, object]]) -> list[tuple[Mapping[str, object], str]]:
        """The rows for which it is not shown to hold, each with why. Raises InputError where none is meant.

        Nothing is shown by a row whose trials have not all ended well, unless the condition counts them, nor by the
        interval of one seed.
        """
        if rows and self.metric not in rows[0]:
            raise InputError(f"there is no column {self.metric!r}", f"the columns are {', '.join(rows[0])}")
        meant = [row for row in rows if all(str(row[name]) == value for name, value in self.only)]
        if not meant:
            raise InputError(f"check={self.text!r} is about no row of the report", "leave out, or correct, its 'for'")
        return [(row, why) for row in meant if (why := self._against(row)) is not None]

    def _against(self, row: Mapping[str, object]) -> str | None:
        value = row[self.metric]
        if not (isinstance(value, int | float) and _OPERATORS[self.operator](value, self.bound)):
            return f"{self.metric} = {value}"
        if row.get("missing") and not row.get("incomplete") and self.metric not in _COUNTS:
            return f"{row['missing']} of its trials have no result"
        compared = row.get(f"{_END.sub('', self.metric)}_verdict")
        return str(compared) if compared == Verdict.ONE_SEED and _END.search(self.metric) else None


def parse_check(text: str) -> Condition:
    """The check that the text says. Raises InputError."""
    match = _CHECK.fullmatch(text)
    if match is None:
        raise InputError(f"check={text!r} is not METRIC OPERATOR NUMBER", _EXAMPLE)
    only = parse_variant(match["filter"], f"check={text!r}", _EXAMPLE) if match["filter"] else ()
    return Condition(text.strip(), match["metric"], match["operator"], float(match["bound"]), only)
