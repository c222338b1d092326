"""What is exported, and how: the one argument of every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolswap.export.naming import without_folders
from poolswap.manifest import Manifest

Arguments = tuple[Tensor, ...]
Runner = Callable[[Arguments], list[Tensor]]


@dataclass(frozen=True)
class Job:
    """A swapped model in eval mode on the CPU, what its checkpoint says of it, and the options of the format.

    The model's forward takes `arguments`, tensors whose first dimension is the batch.
    """

    model: nn.Module
    manifest: Manifest
    arguments: Arguments
    opset: int | None = None
    dynamic_size: bool = False
    fused: bool = False
    branch: bool = False

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself: the checkpoint's manifest, with the names of files but not their folders."""
        return {"poolswap": json.dumps(without_folders(self.manifest.model_dump(mode="json", exclude_defaults=True)))}

    def resized(self, batch: int, longer: int = 0, scale: float = 1.0, seed: int = 0) -> Arguments:
        """Standard normal inputs of another batch size, `longer` in every spatial dimension, times `scale`."""
        generator = torch.Generator().manual_seed(seed)

        def like(x: Tensor) -> Tensor:
            spatial = [n + longer for n in x.shape[2:]]
            noise = torch.randn(batch, x.shape[1], *spatial, generator=generator, dtype=torch.float32)
            return (noise * scale).to(x.dtype)

        return tuple(like(x) for x in self.arguments)
