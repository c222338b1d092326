"""The model as a torch.export program: with the poolswap operator, or in standard operators."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.export import Dim, ExportedProgram

from poolswap.errors import InputError, first_line
from poolswap.export.decompose import soft_pool_decomposition
from poolswap.export.job import Job

_SPATIAL = {1: ("length",), 2: ("height", "width"), 3: ("time", "height", "width")}


def program(job: Job, *, fused: bool = False) -> ExportedProgram:
    """Traced with a dynamic batch size, and dynamic spatial sizes where the job asks for them.

    `fused` leaves `poolswap::soft_pool` in. Raises InputError where torch cannot trace the model so.
    """
    batch = Dim("batch")
    spatial = {name: Dim(name) for name in _SPATIAL[3]} if job.dynamic_size else {}
    shapes = []
    for x in job.arguments:
        names = _SPATIAL.get(x.dim() - 2, ()) if job.dynamic_size else ()
        shapes.append({0: batch, **{axis: spatial[name] for axis, name in enumerate(names, start=2)}})
    try:
        with quiet(), torch.no_grad():
            exported = torch.export.export(job.model, job.arguments, dynamic_shapes=tuple(shapes))
            if fused:
                return exported
            return exported.run_decompositions({torch.ops.poolswap.soft_pool.default: soft_pool_decomposition})
    except Exception as error:
        hint = "leave out --dynamic-size" if job.dynamic_size else "export --to state-dict does not trace the model"
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
