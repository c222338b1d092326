"""A torch.export program: portable, or with the poolswap operator for those who have it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from poolswap.export.job import Arguments, Job, Runner
from poolswap.export.trace import program, quiet


def write(job: Job, path: Path) -> None:
    """The program, with the manifest among its extra files."""
    buffer = BytesIO()  # on a full disk torch's own writer ends the process
    with quiet():
        torch.export.save(program(job, fused=job.fused), buffer, extra_files=job.metadata)
    path.write_bytes(buffer.getbuffer())


def runner(job: Job, path: Path) -> Runner:
    """The loaded program as a module."""
    with quiet():
        module = torch.export.load(path).module()

    def run(arguments: Arguments) -> list[Tensor]:
        with torch.no_grad():
            return [leaf for leaf in tree_leaves(module(*arguments)) if isinstance(leaf, Tensor)]

    return run
