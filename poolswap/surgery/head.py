"""A spatial pyramid in the place of a head's global pooling, and the wider classifier that it needs."""

from __future__ import annotations

from torch import nn

from poolswap.errors import InputError
from poolswap.inputs import floating_tensor
from poolswap.nn.spp import SpatialPyramidPool
from poolswap.surgery.calls import PoolingCall

_HINT = "replace the head with soft: to='soft', include_global=True"


def pyramid(call: PoolingCall, levels: tuple[int, ...] = (1, 2, 4)) -> SpatialPyramidPool:
    """The pyramid for a global pooling call. Raises InputError where its output would have no place.

    A window that covers the map, and an adaptive pool to 1, keep axes of size 1; a mean keeps them if it is told to.
    """
    if call.output_size is not None and set(call.output_size) != {1}:
        raise InputError(f"spp replaces a pooling to one value, not to {call.output_size}", _HINT)
    if call.axes is not None and call.axes[0] == 1:
        raise InputError("spp takes channels before the map, and this head has them behind it", _HINT)
    return SpatialPyramidPool(call.dims, levels=levels, keepdim=call.axes is None or call.keepdim)


def widened(model: nn.Module, channels: int, cells: int) -> tuple[str, nn.Linear]:
    """(path of the classifier, a new one for `channels * cells` features): the model's last nn.Linear.

    Raises InputError where that layer does not take the pooled channels.
    """
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    path, old = linears[-1] if linears else ("", None)
    if old is None or old.in_features != channels:
        takes = f"its last, {path}, takes {old.in_features}" if old else "the model has none"
        raise InputError(f"spp needs a linear classifier on the {channels} pooled channels; {takes}", _HINT)
    like = floating_tensor(old)
    assert like is not None
    new = nn.Linear(channels * cells, old.out_features, old.bias is not None, device=like.device, dtype=like.dtype)
    return path, new.train(old.training)
