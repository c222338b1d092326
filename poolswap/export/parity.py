"""Is the file the model: both run on the same inputs, the file in its own runtime."""

from __future__ import annotations

from math import inf

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from poolswap.errors import CheckError, first_line
from poolswap.export.job import Job, Runner
from poolswap.inputs import outputs_of
from poolswap.measure import relative_distance

TOLERANCE = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
BATCHES = (1, 2, 5)
# A second resolution that no common stride divides, and inputs far outside of what the model was trained on.
LONGER = 37
HOSTILE = (1e4, 1e2, 10.0)


class Parity(BaseModel):
    """One input that both ran on, and their largest difference relative to the model's largest output."""

    model_config = ConfigDict(frozen=True)

    input: str
    batch: int
    difference: float


def measure_parity(job: Job, run: Runner) -> list[Parity]:
    """Batch sizes 1, 2 and 5, hostile activations, and with dynamic sizes a second resolution.

    Hostile inputs are scaled as far as the model's own outputs stay finite. Raises CheckError where the runtime refuses
    the file or an input.
    """
    found = [_compare(job, run, "noise", batch) for batch in BATCHES]
    if job.dynamic_size:
        found.append(_compare(job, run, f"noise, {LONGER} longer", 2, longer=LONGER))
    scale = next((s for s in HOSTILE if _is_finite(outputs_of(job.model, (job.resized(2, scale=s), {})))), None)
    if scale is not None:
        found.append(_compare(job, run, f"noise times {scale:g}", 2, scale=scale))
    return found


def _compare(job: Job, run: Runner, what: str, batch: int, *, longer: int = 0, scale: float = 1.0) -> Parity:
    arguments = job.resized(batch, longer, scale, seed=batch)
    expected = outputs_of(job.model, (arguments, {}))
    try:
        got = [y for y in run(arguments) if y.is_floating_point()]
    except Exception as error:
        message = f"the exported file does not run on {what}, batch {batch}: {first_line(error)}"
        hint = "leave out dynamic_size=True, or begin with a larger input_size=: a map of one element keeps its size"
        raise CheckError(message, hint if longer else None) from error
    return Parity(input=what, batch=batch, difference=relative_distance(got, expected, inf))


def _is_finite(outputs: list[Tensor]) -> bool:
    return all(bool(y.isfinite().all()) for y in outputs)
