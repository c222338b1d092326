"""The model as a torch.export program: with the poolswap operator, or in standard operators."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from poolswap.errors import InputError, first_line
from poolswap.export.job import Job
from poolswap.ops.decompose import soft_pool_decomposition


def program(job: Job, *, fused: bool = False) -> ExportedProgram:
    """Traced with a dynamic batch size, and dynamic spatial sizes where the job asks for them.

    `fused` leaves `poolswap::soft_pool` in. Raises InputError where torch cannot trace the model so.
    """
    # A named dimension would refuse the sizes that are too small for the model; DYNAMIC leaves them to the runtime.
    spatial = Dim.DYNAMIC if job.dynamic_size else Dim.STATIC
    batch = Dim("batch")
    shapes: Any = tuple({0: batch, **dict.fromkeys(range(2, x.dim()), spatial)} for x in job.arguments)
    if any(p.kind is p.VAR_POSITIONAL for p in signature(job.model.forward).parameters.values()):
        shapes = (shapes,)  # a lifted owner's forward(*args)
    try:
        with quiet(), torch.no_grad():
            exported: ExportedProgram = torch.export.export(job.model, job.arguments, dynamic_shapes=shapes)
            if fused:
                return exported
            plain: ExportedProgram = exported.run_decompositions(
                {torch.ops.poolswap.soft_pool.default: soft_pool_decomposition}
            )
            return plain
    except Exception as error:
        hint = "leave out dynamic_size=True" if job.dynamic_size else "the format state-dict needs no trace"
        raise InputError(f"torch.export cannot trace the model: {first_line(error)}", hint) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of exporters about their own insides; what they cannot do is raised, not warned about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
