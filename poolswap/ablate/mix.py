"""A variant with an operator for each of its layers: `maxpool=soft; layer2.0.pool=lp:p=3`."""

from __future__ import annotations

from collections.abc import Mapping

from poolswap.errors import InputError


def is_mix(text: str) -> bool:
    """Whether the text is a mix and no single operator: `=` stands before any option."""
    return "=" in text.partition(":")[0]


def parse_mix(text: str) -> dict[str, str]:
    """{path: operator with its options}, in order. Raises InputError for what is no mix, or names a layer twice."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        path, equals, operator = (piece.strip() for piece in part.partition("="))
        if not (path and equals and operator) or path in found:
            raise InputError(
                f"{text!r} is not a mix of layers with an operator each", "write 'maxpool=soft; pool=lp:p=3'"
            )
        found[path] = operator
    return found


def mix_text(operators: Mapping[str, str]) -> str:
    """The text that `parse_mix` takes."""
    return "; ".join(f"{path}={operator}" for path, operator in operators.items())


def operators_of(to: str) -> tuple[str, ...]:
    """The operators that `to` names: of a mix, each once."""
    return tuple(dict.fromkeys(parse_mix(to).values())) if is_mix(to) else (to,)
