"""A model's outputs on a seeded input, short enough to keep in a file: what `verify` compares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from poolswap.inputs import Example, evaluating, outputs_of, seeded_inputs

_KEPT = 16


class Output(BaseModel):
    """One output tensor: its first values, and the Euclidean norm of all of them."""

    model_config = ConfigDict(frozen=True)

    shape: tuple[int, ...]
    first: tuple[float, ...]
    norm: float


class Fingerprint(BaseModel):
    """The recipe of the input (`poolswap.inputs.seeded_inputs`) and what came out, in eval mode.

    `input_sha256` tells whether the recipe still gives the same input. `sha256` is over the bytes of the outputs in
    float32, and holds only on the same machine and versions.
    """

    model_config = ConfigDict(frozen=True)

    seed: int = 0
    batch: int = Field(default=2, ge=1, le=64)
    input_sha256: str
    outputs: tuple[Output, ...]
    sha256: str

    def distance(self, other: Fingerprint) -> float:
        """Largest difference of kept values and norms, relative to their magnitude; inf where shapes differ."""
        if [output.shape for output in self.outputs] != [output.shape for output in other.outputs]:
            return float("inf")
        pairs = list(zip(self.outputs, other.outputs, strict=True))
        values = max((_distance(a.first, b.first) for a, b in pairs), default=0.0)
        return max([values, *(_distance((a.norm,), (b.norm,)) for a, b in pairs)])


def fingerprint(
    model: nn.Module, input_size: Sequence[int], *, seed: int = 0, batch: int = 2, example: Example | None = None
) -> Fingerprint:
    """Run the model on its device and in its dtype; its mode is put back. Raises ValueError for absurd input sizes."""
    inputs = seeded_inputs(model, input_size, seed=seed, batch=batch, example=example)
    with evaluating(model):
        outputs = [output.float().cpu() for output in outputs_of(model, inputs)]
    return Fingerprint(
        seed=seed,
        batch=batch,
        input_sha256=_digest(leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)),
        outputs=tuple(
            Output(shape=tuple(y.shape), first=tuple(y.flatten()[:_KEPT].tolist()), norm=float(y.double().norm()))
            for y in outputs
        ),
        sha256=_digest(outputs),
    )


def _digest(tensors: Iterable[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(str(tuple(tensor.shape)).encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


def _distance(mine: Sequence[float], theirs: Sequence[float]) -> float:
    if len(mine) != len(theirs):
        return float("inf")
    scale = max(map(abs, (*mine, *theirs)), default=0.0)
    worst = max((abs(a - b) for a, b in zip(mine, theirs, strict=True) if a != b), default=0.0)
    if any((a != a) != (b != b) for a, b in zip(mine, theirs, strict=True)):
        return float("inf")
    return worst / scale if worst and scale else 0.0
