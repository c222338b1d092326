"""The model as a torch.export program: with the poolswap operator, or in standard operators."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature

import torch
from torch.export import Dim, ExportedProgram

from poolswap.errors import InputError, first_line
from poolswap.export.job import Job
from poolswap.export.naming import forget_source
from poolswap.ops.branch import branching_decomposition
from poolswap.ops.decompose import soft_pool_decomposition


def program(job: Job, *, fused: bool = False) -> ExportedProgram:
    """Traced with a dynamic batch size, and dynamic spatial sizes where the job asks for them.

    `fused` leaves `poolswap::soft_pool` in. Raises InputError where torch cannot trace the model so.
    """
    # A named dimension would refuse the sizes that are too small for the model; DYNAMIC leaves them to the runtime.
    spatial = Dim.DYNAMIC if job.dynamic_size else Dim.STATIC
    batch = Dim("batch", max=2**31 - 1)  # torch 2.7 refuses one without a bound
    sizes = [{0: batch, **dict.fromkeys(range(2, x.dim()), spatial)} for x in job.arguments]
    shapes = dict(signature(job.model.forward).bind(*sizes).arguments)
    try:
        with quiet(), torch.no_grad():
            # YOLO compares its input's shape with the last one's: batch 1 is that of no trace whose batch may vary.
            job.model(*job.resized(1))
            exported: ExportedProgram = torch.export.export(
                job.model,
                job.arguments,
                dynamic_shapes=shapes,
                strict=False,  # as newer versions of torch do by themselves
            )
            made = exported if fused else in_standard_operators(exported, branch=job.branch)
            forget_source(made.graph_module)
            return made
    except Exception as error:
        hint = "leave out dynamic_size=True" if job.dynamic_size else "the format state-dict needs no trace"
        raise InputError(f"torch.export cannot trace the model: {first_line(error)}", hint) from error


def in_standard_operators(exported: ExportedProgram, *, branch: bool = False) -> ExportedProgram:
    """The program without operators of poolswap's. Every beta that it keeps becomes a number of its graph.

    `branch` puts the cheaper form of SoftPool under a condition, where beta is one number.
    """
    _fix_betas(exported)
    ops = torch.ops.poolswap
    table = {
        ops.soft_pool.default: soft_pool_decomposition,
        ops.soft_pool_fixed.default: branching_decomposition if branch else soft_pool_decomposition,
    }
    plain: ExportedProgram = exported.run_decompositions(table)
    return plain


def _fix_betas(exported: ExportedProgram) -> None:
    signature = exported.graph_signature
    kept = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    tensors = {**exported.state_dict, **exported.constants}
    for node in exported.graph.nodes:
        if node.target is not torch.ops.poolswap.soft_pool.default:
            continue
        x, beta, *windows = node.args
        if beta.name in kept and tensors[kept[beta.name]].numel() == 1:
            value = float(tensors[kept[beta.name]])
        elif beta.target is torch.ops.aten.full.default:
            value = float(beta.args[1])
        else:
            continue
        node.target, node.args = torch.ops.poolswap.soft_pool_fixed.default, (x, value, *windows)


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
