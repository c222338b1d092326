"""What SoftPool costs beside what torch offers: the operator on its own, and whole models before and after the swap."""

from poolswap.bench.model import ModelRow, bench_model
from poolswap.bench.operator import STANDARD_CASES, Case, OperatorRow, bench_operator

__all__ = ["STANDARD_CASES", "Case", "ModelRow", "OperatorRow", "bench_model", "bench_operator"]
