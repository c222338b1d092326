"""A model's outputs on a seeded input, short enough to keep in a file: what `verify` compares."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from math import inf

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from poolswap.errors import CheckError
from poolswap.inputs import Example, all_outputs_of, evaluating, seeded_inputs
from poolswap.measure import relative_distance
from poolswap.surgery.probe import rehearse

_KEPT = 16


class KeptOutput(BaseModel):
    """One output tensor: its first values, and the Euclidean norm of all of them.

    `exact` is set for integers and booleans, which may not differ at all: a SHA-256 over their bytes. The numbers are
    finite: a NaN would be like no other, and infinity as near to everything.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    shape: tuple[int, ...]
    first: tuple[float, ...]
    norm: float
    exact: str | None = None

    def distance(self, other: KeptOutput) -> float:
        """The larger difference of the kept values and of the norms, relative to the other's."""
        mine, theirs = ([torch.tensor(v, dtype=torch.float64) for v in (y.first, [y.norm])] for y in (self, other))
        return relative_distance(mine, theirs, inf)

    @classmethod
    def of(cls, y: Tensor) -> KeptOutput:
        """Of an output on the CPU. Raises CheckError where it is not finite."""
        if not y.isfinite().all():
            raise CheckError(
                "the model's outputs are not finite: NaN or infinity",
                "check the weights; a training that went wrong may be repeated with a lower lr=",
            )
        first, norm = tuple(y.flatten()[:_KEPT].tolist()), float(y.double().norm())
        return cls(shape=tuple(y.shape), first=first, norm=norm, exact=None if y.is_floating_point() else _digest([y]))


class Fingerprint(BaseModel):
    """The recipe of the input (`poolswap.inputs.seeded_inputs`) and what came out, in eval mode.

    `input_sha256` tells whether the recipe still gives the same input. `sha256` is over the bytes of the outputs,
    floating point ones in float32, and holds only on the same machine and versions.
    """

    model_config = ConfigDict(frozen=True)

    seed: int = Field(default=0, ge=0, lt=2**64)  # what torch takes
    batch: int = Field(default=2, ge=1, le=64)
    input_sha256: str
    outputs: tuple[KeptOutput, ...]
    sha256: str

    @property
    def compares(self) -> bool:
        """Whether there is anything to compare: a forward may give nothing that holds a value."""
        return any(math.prod(output.shape) for output in self.outputs)

    def distance(self, other: Fingerprint) -> float:
        """Largest difference of kept values and norms, relative to their magnitude.

        It is inf where shapes differ, or integers do.
        """
        if [(output.shape, output.exact) for output in self.outputs] != [(y.shape, y.exact) for y in other.outputs]:
            return float("inf")
        pairs = list(zip(self.outputs, other.outputs, strict=True))
        return max((a.distance(b) for a, b in pairs), default=0.0)


def fingerprint(
    model: nn.Module, input_size: Sequence[int], *, seed: int = 0, batch: int = 2, example: Example | None = None
) -> Fingerprint:
    """Run the model on its device and in its dtype; its mode is put back.

    Raises ValueError for absurd input sizes, TooLargeError for a forward that the machine has no memory for, CheckError
    for outputs with NaN or infinity.
    """
    rehearse(model, input_size, batch, example)
    inputs = seeded_inputs(model, input_size, seed=seed, batch=batch, example=example)
    with evaluating(model):
        outputs = [_plain(output) for output in all_outputs_of(model, inputs)]
    return Fingerprint(
        seed=seed,
        batch=batch,
        input_sha256=_digest(_plain(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)),
        outputs=tuple(map(KeptOutput.of, outputs)),
        sha256=_digest(outputs),
    )


def _plain(output: Tensor) -> Tensor:
    """On the CPU, floating point as float32, complex numbers as pairs."""
    output = output.detach().cpu()
    output = torch.view_as_real(output.resolve_conj()) if output.is_complex() else output
    return output.float() if output.is_floating_point() else output


def _digest(tensors: Iterable[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(str(tuple(tensor.shape)).encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()
