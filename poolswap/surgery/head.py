"""What an operator is told of the site that it replaces, and the wider classifier that some heads need."""

from __future__ import annotations

from torch import nn

from poolswap.errors import InputError
from poolswap.geometry import Geometry
from poolswap.inputs import floating_tensor
from poolswap.nn.site import HeadSite, RegionSite, WindowSite
from poolswap.operators import Operator
from poolswap.surgery.plan import Swap

_HINT = "replace the head with soft: to='soft', include_global=True"


def described(swap: Swap, operator: Operator, model: nn.Module) -> WindowSite | HeadSite | RegionSite:
    """The swap's site as its operator's module takes it."""
    site, call = swap.site, swap.site.call
    assert call is not None
    channels = site.channels
    if site.op == "conv":
        assert call.geometry is not None
        return WindowSite(_downsampling(call.geometry, operator), channels=channels)
    start = site.op if swap.init == "identity" else None
    if site.scope == "region":
        return RegionSite(model.get_submodule(site.path), channels=channels, stock=site.op, start=start)
    if site.scope == "window":
        geometry = swap.geometry or call.geometry
        assert geometry is not None
        return WindowSite(geometry, channels=channels, stock=site.op, start=start)
    grid = call.output_size
    return HeadSite(
        axes=call.axes or tuple(range(-call.dims, 0)),
        keepdim=call.axes is None or call.keepdim,
        output_size=None if grid is None or set(grid) == {1} else grid,
        # A functional pooling over a window that covers the map follows the map's size, whatever it is.
        windows=call.geometry if site.kind == "module" else None,
        channels=channels,
        stock=site.op,
        start=start,
    )


def _downsampling(strided: Geometry, operator: Operator) -> Geometry:
    """What takes a convolution's stride, after its map: every stride-th element, or windows as large as the stride."""
    if operator.subsamples:
        return strided
    return Geometry.make(strided.dims, strided.stride, strided.stride, ceil_mode=True)


def widened(model: nn.Module, swap: Swap, cells: int) -> tuple[str, nn.Linear]:
    """(path of the classifier, a new one for `cells` values a channel): the model's last nn.Linear.

    Raises InputError where that layer does not take the pooled channels.
    """
    channels = swap.site.channels
    linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    path, old = linears[-1] if linears else ("", None)
    if old is None or old.in_features != channels:
        takes = f"its last, {path}, takes {old.in_features}" if old else "the model has none"
        raise InputError(f"{swap.to} needs a linear classifier on the {channels} pooled channels; {takes}", _HINT)
    like = floating_tensor(old)
    assert like is not None
    new = nn.Linear(channels * cells, old.out_features, old.bias is not None, device=like.device, dtype=like.dtype)
    return path, new.train(old.training)
