"""How long, how much memory, how far apart: each measured in one way, whatever is compared."""

from poolswap.measure.distance import relative_distance
from poolswap.measure.memory import peak_memory, peak_tensor_bytes
from poolswap.measure.time import Ratio, Rounds, Timing, interleave

__all__ = ["Ratio", "Rounds", "Timing", "interleave", "peak_memory", "peak_tensor_bytes", "relative_distance"]
