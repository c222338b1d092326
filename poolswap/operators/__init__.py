"""The operators by name, their options, and what each costs."""

from poolswap.operators.registry import (
    OPERATORS,
    Operator,
    all_operators,
    load_operator,
    parse_operator,
    split_operators,
)

__all__ = ["OPERATORS", "Operator", "all_operators", "load_operator", "parse_operator", "split_operators"]
