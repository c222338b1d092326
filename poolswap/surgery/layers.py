"""Layers that downsample or pool without a pooling call: strided convolutions, and torchvision's pooling of regions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torchvision.ops import MultiScaleRoIAlign, RoIAlign, RoIPool

from poolswap.geometry import Geometry
from poolswap.inputs import Example
from poolswap.nn.conv import Conv
from poolswap.surgery.calls import PoolingCall
from poolswap.surgery.mark import replaced_by
from poolswap.surgery.probe import run_layers

# Beside pooling calls and regions, which are always looked for.
Include = Literal["convs"]

_CONVS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_REGIONS = (RoIPool, RoIAlign, MultiScaleRoIAlign)

# A stride of 4x4, as of the stems of ConvNeXt; patch embeddings have 14x14 and more.
_MOST_WORK = 16


def is_conv(module: nn.Module) -> bool:
    """Whether the module is a convolution of torch, or of a subclass, that downsamples."""
    return isinstance(module, Conv) and prod(module.stride) > 1


def is_region_pool(module: nn.Module) -> bool:
    """Whether the module is one of torchvision's poolings of regions."""
    return isinstance(module, _REGIONS)


def layer_call(module: nn.Module) -> PoolingCall | None:
    """What the layer does, as a call: a convolution takes every stride-th element; None for any other module."""
    if isinstance(module, Conv) and is_conv(module):
        dims = next(dims for cls, dims in _CONVS.items() if isinstance(module, cls))
        return PoolingCall("conv", dims, geometry=Geometry.make(dims, 1, module.stride))
    if is_region_pool(module):
        size: Any = module.output_size
        grid = (size, size) if isinstance(size, int) else tuple(size)
        return PoolingCall("max" if isinstance(module, RoIPool) else "avg", 2, output_size=grid)
    return None


def layer_obstacle(module: nn.Module) -> str | None:
    """Why the layer cannot be replaced, or None."""
    if isinstance(module, MultiScaleRoIAlign) and module.sampling_ratio < 1:
        return "samples as many points as each bin has elements, on several maps"
    if not isinstance(module, Conv):
        return None
    if is_parametrized(module):
        return "has parameters that are computed, by torch.nn.utils.parametrize"
    if "weight" not in module._parameters:
        return "has a weight that a hook computes, as spectral_norm and pruning do"
    stock = next(cls for cls in _CONVS if isinstance(module, cls))
    own = any(getattr(type(module), name) is not getattr(stock, name) for name in ("forward", "_conv_forward"))
    if own or "forward" in vars(module):
        return f"is a {type(module).__name__}, whose forward is its own"
    return None


def only_if_named(module: nn.Module) -> str | None:
    """Why the layer is replaced only if it is named, or None."""
    if is_region_pool(module):
        return "pools regions: name it to replace it"
    work = prod(module.stride) if isinstance(module, Conv) else 1
    return f"would do {work} times the work without its stride: name it to replace it" if work > _MOST_WORK else None


def find_layers(
    model: nn.Module, input_size: Sequence[int], example: Example | None, include: Sequence[Include]
) -> list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]]:
    """(path, module, input shape, output shape) of every call of such a layer, in call order, regions first."""
    replaced = [path for path, module in model.named_modules() if replaced_by(module) is not None]
    wanted = {}
    for path, module in model.named_modules():
        inside = any(path == other or path.startswith(f"{other}.") for other in replaced)
        if not inside and (is_region_pool(module) or ("convs" in include and is_conv(module))):
            wanted[path] = module
    if not wanted:
        return []
    seen = run_layers(model, input_size, example, wanted)
    calls = [(path, wanted[path], *shapes) for path, *shapes in seen]
    return sorted(calls, key=lambda call: not is_region_pool(call[1]))
