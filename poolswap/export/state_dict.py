"""The bare weights of the swapped model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from poolswap.export.job import Arguments, Job, Runner
from poolswap.files import save_tensors, torch_save
from poolswap.inputs import outputs_of
from poolswap.manifest import metadata_of


def write(job: Job, path: Path) -> None:
    """A .pt for torch.load(weights_only=True), or a .safetensors with the manifest in its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in job.model.state_dict().items()}
    if path.suffix == ".pt":
        torch_save(tensors, path)
    else:
        save_tensors(tensors, path, metadata_of(job.metadata["poolswap"]))


def runner(job: Job, path: Path) -> Runner:
    """A copy of the model with the weights of the file, loaded strictly into zeros."""
    model = deepcopy(job.model)
    for tensor in model.state_dict().values():
        tensor.zero_()
    loaded = torch.load(path, weights_only=True) if path.suffix == ".pt" else load_file(path)
    model.load_state_dict(loaded, strict=True)

    def run(arguments: Arguments) -> list[Tensor]:
        return outputs_of(model, (arguments, {}))

    return run
