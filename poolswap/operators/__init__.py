"""The operators by name, their options, and what each costs."""

from poolswap.operators.builtin import OPERATORS
from poolswap.operators.operator import Operator
from poolswap.operators.registry import all_operators, load_operator, parse_operator, split_operators

__all__ = ["OPERATORS", "Operator", "all_operators", "load_operator", "parse_operator", "split_operators"]
