"""Model -> its pooling sites in call order, modules and functional calls alike."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.fx import GraphModule

from poolswap.geometry import Geometry
from poolswap.inputs import Example
from poolswap.surgery.calls import PoolingCall, SiteOp, is_pool_module, module_call
from poolswap.surgery.layers import Include, find_layers, is_conv, layer_call, layer_obstacle, only_if_named
from poolswap.surgery.probe import probe
from poolswap.surgery.recording import Event, Trace

Kind = Literal["module", "functional", "written out", "conv", "roi"]
Shape = tuple[Annotated[int, Field(ge=0, lt=2**48)], ...]
Scope = Literal["window", "global", "region"]

# A whole-map average with fewer elements than this is a small window that happens to cover a small map.
_SMALLEST_MAP = 9

_ASIDE = "is compared, as in non-maximum suppression: name it to replace it"

LOOKS_FOR = (
    "max, average and adaptive pooling of torch and timm, as modules and as calls, means and maxima of whole maps; "
    "windows written out as view or unfold with amax or mean, and area interpolation, are listed but not replaceable"
)

_COLUMNS = (
    *("number", "path", "owner", "kind", "op", "scope", "kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    *("input_shape", "output_shape", "replaceable", "reason", "aliases", "only", "function"),
)


class PoolSite(BaseModel):
    """One pooling call of a model, or a layer that downsamples or pools without one: kinds "conv" and "roi".

    `path` names the module, or the child that lifting gives a functional call; `owner` is the path of the module whose
    forward makes the call. Shapes are those of the probed forward, batch included. `eval_call` and `train_call` count
    the owner's own calls of pooling functions in either mode, from 0: what lifting hands to the child. `only` names the
    mode that takes the call where the other does not. `aside` says why a site that can be replaced is left out unless
    it is named. `probed` is the input size that showed it, which a plan takes over.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    path: str
    owner: str
    kind: Kind
    op: SiteOp
    scope: Scope
    call: PoolingCall | None
    function: str
    input_shape: Shape = Field(min_length=2)
    output_shape: Shape
    replaceable: bool
    reason: str | None = None
    aliases: tuple[str, ...] = ()
    eval_call: int | None = None
    train_call: int | None = None
    only: Literal["eval", "train"] | None = None
    aside: str | None = None
    probed: tuple[int, ...] | None = Field(default=None, exclude=True, repr=False)

    @property
    def left_out(self) -> str | None:
        """Why the site is no part of `all`: it cannot be replaced, or only if it is named."""
        return self.reason or self.aside or ("runs only in train mode" if self.only == "train" else None)

    @property
    def geometry(self) -> Geometry | None:
        """The windows; None for a global site."""
        return self.call.geometry if self.call else None

    @property
    def kernel_size(self) -> tuple[int, ...] | None:
        """Window size; None for a global site."""
        return self.geometry.kernel_size if self.geometry else None

    @property
    def stride(self) -> tuple[int, ...] | None:
        """Step between windows; None for a global site."""
        return self.geometry.stride if self.geometry else None

    @property
    def padding(self) -> tuple[int, ...] | Literal["same"] | None:
        """Padding on both sides, "same" where the input size decides it; None for a global site."""
        if self.geometry is None:
            return None
        return "same" if self.geometry.same else self.geometry.padding

    @property
    def dilation(self) -> tuple[int, ...] | None:
        """Step between the elements of a window; None for a global site."""
        return self.geometry.dilation if self.geometry else None

    @property
    def ceil_mode(self) -> bool | None:
        """Whether a last, partial window counts; None for a global site."""
        return self.geometry.ceil_mode if self.geometry else None

    def describe(self) -> dict[str, Any]:
        """The site as one flat row, for tables and JSON."""
        return {name: getattr(self, name) for name in _COLUMNS}

    @property
    def channels(self) -> int:
        """Channels of the pooled map, which may have no batch: of a convolution, those that it makes."""
        if self.call is None:
            return self.input_shape[1]
        channels_last = self.call.axes is not None and self.call.axes[0] == 1
        return self._map[-1 if channels_last else -1 - self.call.dims]

    @property
    def _map(self) -> tuple[int, ...]:
        return self.output_shape if self.kind == "conv" else self.input_shape

    @model_validator(mode="after")
    def _has_channels(self) -> PoolSite:
        if self.call is not None and len(self._map) <= self.call.dims:
            raise ValueError(f"a map of shape {self._map} has no channels to pool in {self.call.dims} dimensions")
        return self


def find_pools(
    model: nn.Module,
    input_size: Sequence[int] = (3, 224, 224),
    *,
    example: Example | None = None,
    include: Sequence[Include] = (),
) -> list[PoolSite]:
    """Every pooling site of the model, in the order in which one forward calls them; train-only ones last.

    Behind them stand torchvision's poolings of regions and, with include=["convs"], strided convolutions.

    `input_size` is (C, *spatial) without the batch. `example` replaces the input made from it: a tensor, a sequence of
    positional or a mapping of keyword arguments. The model is not changed, and no weights are needed: it may lie on
    the meta device. Raises InputError where the forward cannot run.
    """
    evaluated, trained = probe(model, input_size, example)
    slots = [slot for slot in _slots(evaluated, trained) if slot.is_site]
    namer = _Namer(model)
    paths = [namer.path(slot) for slot in slots]
    calls = [(event, slot, path) for slot, path in zip(slots, paths, strict=True) for event in slot.site_events]
    calls.sort(key=lambda call: (not call[1].evaluated, call[0].position))
    confused = evaluated.confused | (trained.confused if trained else frozenset())
    sites = [
        _site(number, event, slot, path, namer, confused) for number, (event, slot, path) in enumerate(calls, start=1)
    ]
    layers = enumerate(find_layers(model, input_size, example, include), start=len(sites) + 1)
    sites += [_layer_site(number, *layer, namer) for number, layer in layers]
    return [site.model_copy(update={"probed": tuple(input_size)}) for site in sites]


@dataclass
class _Slot:
    """One pooling call in the text of an owner's forward: its events in eval mode, and in train mode."""

    owner: str
    evaluated: list[Event]
    trained: list[Event]
    train_known: bool
    stable: bool

    @property
    def site_events(self) -> list[Event]:
        """The events that become sites: one for every time that one forward makes the call."""
        return self.evaluated or self.trained[:1]

    @property
    def seen(self) -> list[Event]:
        """All events, of both modes."""
        return [*self.evaluated, *self.trained]

    @property
    def is_site(self) -> bool:
        """Whether the call pools windows or ends the feature maps; gates and normalisation means do neither."""
        return any(scope_of(event) is not None for event in self.site_events)

    @property
    def only(self) -> Literal["eval", "train"] | None:
        """The mode that takes the call where the other, which could be run, does not."""
        if not self.train_known:
            return None
        return "train" if not self.evaluated else "eval" if not self.trained else None


def scope_of(event: Event) -> Scope | None:
    """Window or global; None for what is neither, such as a squeeze-and-excite gate."""
    call = event.call
    if call is None:
        return "window"
    if call.geometry is None:
        return "global" if event.head else None
    averages_map = call.op == "avg" and call.covers(event.input_shape) and set(event.output_shape[-call.dims :]) == {1}
    if averages_map and math.prod(call.geometry.kernel_size) >= _SMALLEST_MAP:
        return "global" if event.head else None
    return "window"


def _slots(evaluated: Trace, trained: Trace | None) -> list[_Slot]:
    """The calls of every owner, those of eval mode paired with those of train mode by what they say."""
    slots = []
    in_eval, in_train = _by_owner(evaluated), _by_owner(trained) if trained else {}
    for owner in dict.fromkeys((*in_eval, *in_train)):
        forwards, train_forwards = in_eval.get(owner, []), in_train.get(owner, [])
        stable = _alike(forwards) and _alike(train_forwards)
        columns = _columns(forwards), _columns(train_forwards)
        for mine, others in _align(*columns):
            slots.append(_Slot(owner, mine, others, train_known=trained is not None, stable=stable))
    return slots


def _by_owner(trace: Trace) -> dict[str, list[list[Event]]]:
    """Owner -> for each of its forwards, the calls that it made itself."""
    owners: dict[str, list[list[Event]]] = {}
    for event in trace.events:
        forwards = owners.setdefault(event.owner, [[] for _ in range(trace.invocations[event.owner])])
        forwards[event.invocation].append(event)
    return owners


def _signature(event: Event) -> tuple[Any, ...]:
    """What must stay the same from one forward to the next for a call to be the same call."""
    call = event.call
    if call is None or scope_of(event) == "window":
        return event.function, call
    return event.function, call.op, call.dims


def _alike(forwards: list[list[Event]]) -> bool:
    return len({tuple((event.index, _signature(event)) for event in events) for events in forwards}) <= 1


def _columns(forwards: list[list[Event]]) -> list[list[Event]]:
    """The i-th calls of all forwards, for every i. Where the forwards differ, each call stands alone."""
    if _alike(forwards):
        return [list(column) for column in zip(*forwards, strict=True)]
    return [[event] for events in forwards for event in events]


def _align(mine: list[list[Event]], others: list[list[Event]]) -> Iterator[tuple[list[Event], list[Event]]]:
    """Pairs of columns with the same signature, in order; a column with no partner is paired with []."""
    matcher = SequenceMatcher(
        a=[_signature(column[0]) for column in mine], b=[_signature(column[0]) for column in others], autojunk=False
    )
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            yield from zip(mine[i:i_end], others[j:j_end], strict=True)
        else:
            yield from ((column, []) for column in mine[i:i_end])
            yield from (([], column) for column in others[j:j_end])


class _Namer:
    """Paths for sites: a pool module's own, or `pool_i` below the owner of a functional call."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.used: dict[str, int] = {}
        self.paths: dict[nn.Module, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(module, []).append(path)

    def kind(self, slot: _Slot) -> Kind:
        if slot.site_events[0].written_out:
            return "written out"
        return "module" if is_pool_module(self.modules[slot.owner]) else "functional"

    def path(self, slot: _Slot) -> str:
        if self.kind(slot) == "module" or slot.site_events[0].call is None:
            return slot.owner
        self.used[slot.owner] = number = self.used.get(slot.owner, 0) + 1
        owner = self.modules[slot.owner]
        stem = next(stem for stem in ("pool", "pooling", "pool_site") if not hasattr(owner, f"{stem}_{number}"))
        return f"{slot.owner}.{stem}_{number}".lstrip(".")

    def aliases(self, slot: _Slot, path: str) -> tuple[str, ...]:
        """The same place under the other names of its owner."""
        tail = path.removeprefix(slot.owner)
        return tuple(other + tail for other in self.paths[self.modules[slot.owner]] if other != slot.owner)


def _site(number: int, event: Event, slot: _Slot, path: str, namer: _Namer, confused: frozenset[str]) -> PoolSite:
    module = namer.modules[slot.owner]
    call, kind = event.call, namer.kind(slot)
    if call is not None and kind == "module":
        call = module_call(module, call)
    reason = _obstacle(slot, module, kind, confused)
    return PoolSite(
        number=number,
        path=path,
        owner=slot.owner if kind == "functional" else slot.owner.rpartition(".")[0],
        kind=kind,
        op=call.op if call else "max" if "max" in event.function else "avg",
        scope=scope_of(event) or "window",
        call=call,
        function=event.function,
        input_shape=event.module_input_shape if kind == "module" else event.input_shape,
        output_shape=event.output_shape,
        replaceable=reason is None,
        reason=reason,
        aliases=namer.aliases(slot, path),
        eval_call=slot.evaluated[0].index if slot.evaluated else None,
        train_call=slot.trained[0].index if slot.trained else None,
        only=slot.only,
        aside=_ASIDE if reason is None and any(seen.compared for seen in slot.seen) else None,
    )


def _layer_site(
    number: int, path: str, module: nn.Module, seen: tuple[int, ...], made: tuple[int, ...], namer: _Namer
) -> PoolSite:
    call, obstacle, conv = layer_call(module), layer_obstacle(module), is_conv(module)
    assert call is not None
    return PoolSite(
        number=number,
        path=path,
        owner=path.rpartition(".")[0],
        kind="conv" if conv else "roi",
        op=call.op,
        scope="window" if conv else "region",
        call=call,
        function=type(module).__name__,
        input_shape=seen,
        output_shape=made,
        replaceable=obstacle is None,
        reason=obstacle,
        aliases=tuple(other for other in namer.paths[module] if other != path),
        aside=only_if_named(module) if obstacle is None else None,
    )


def _obstacle(slot: _Slot, module: nn.Module, kind: Kind, confused: frozenset[str]) -> str | None:
    """Why the site cannot be replaced, or None."""
    obstacle = next((seen.obstacle for seen in slot.seen if seen.obstacle), None)
    call = slot.site_events[0].call
    if obstacle is not None or call is None:
        return obstacle
    if call.returns_indices:
        return "returns indices, which only max pooling has"
    if call.divisor_override is not None:
        return "divisor_override makes it a scaled sum, not a mean"
    if kind == "functional" and "forward" in vars(module):
        return "has an owner whose forward is patched on the instance, so it cannot be lifted"
    if kind == "functional" and isinstance(module, GraphModule):
        return "is a call in a graph of torch.fx, which is made anew with every copy: swap the model, then trace it"
    if kind == "functional" and not slot.stable:
        return "has an owner that makes other pooling calls from one forward to the next, so it cannot be lifted"
    if kind == "functional" and slot.owner in confused:
        return "has an owner that calls a child's forward directly, whose pooling cannot be told from its own"
    return None
