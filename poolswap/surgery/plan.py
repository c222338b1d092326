"""Selector and sites -> Plan: the frozen list of (site -> replacement) that reproduces a swap."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from poolswap.errors import CheckError, InputError, NothingToReplaceError
from poolswap.geometry import Geometry
from poolswap.models.userfile import split_reference
from poolswap.operators import Operator
from poolswap.operators.registry import find_operator, load_operator, parse_operator
from poolswap.settings import Settings
from poolswap.surgery.calls import SiteOp
from poolswap.surgery.layers import Include
from poolswap.surgery.selectors import Candidates, left_stock, select
from poolswap.surgery.sites import PoolSite, Scope

Init = Literal["identity", "published"]

_STEM = Geometry.make(2, 3, 2, 1)
_PAPER_STEM = Geometry.make(2, 2, 2, ceil_mode=True)  # ceil_mode keeps the stem's output shape at odd sizes


class Swap(BaseModel):
    """One site and what replaces it.

    `geometry` is set only where the windows change too. With init="identity" the operator starts as the layer that it
    replaces, as far as it can; with "published", as in its paper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: PoolSite
    to: str
    options: dict[str, Any] = Field(default_factory=dict)
    geometry: Geometry | None = None
    init: Init = "identity"


class Left(BaseModel):
    """A site that was meant by the selector and stays stock, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    reason: str


class Plan(Settings):
    """What a swap does to a model: reproducible, in JSON or YAML.

    `kept` are functional sites that stay as they are in owners that must be lifted for another site's sake. `left` are
    those that were meant and cannot be replaced, or not without being named.
    """

    noun: ClassVar[str] = "plan"
    example: ClassVar[str] = "swaps: []; poolswap convert MODEL --dry-run --plan-out plan.yaml makes one"

    format: Literal[1] = 1
    model: str | None = None
    input_size: tuple[int, ...] | None = None
    swaps: tuple[Swap, ...] = ()
    kept: tuple[PoolSite, ...] = ()
    left: tuple[Left, ...] = ()

    _used: dict[str, Operator] = PrivateAttr(default_factory=dict)

    def use(self, operator: Operator) -> None:
        """Make the sites of this name by this operator, if it is of a user's own file: no plan runs one by itself."""
        if split_reference(operator.name) is not None:
            self._used[operator.name] = operator

    def run_files(self) -> None:
        """Run the files of the user's own operators that the plan names: its reader trusts it."""
        for name in self.operators:
            self.use(load_operator(name))

    def operator(self, name: str) -> Operator:
        """The operator of this name. Raises InputError for an unknown one, and for a file that was not run."""
        return self._used[name] if name in self._used else find_operator(name)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the modules that are replaced, each once."""
        return tuple(dict.fromkeys(swap.site.path for swap in self.swaps))

    @property
    def include(self) -> tuple[Include, ...]:
        """What `find_pools` has to look for beside pooling to find every site."""
        return ("convs",) if any(swap.site.kind == "conv" for swap in self.swaps) else ()

    def check_whole(self) -> None:
        """Raise CheckError where a site that was meant stays stock."""
        if self.left:
            first, more = self.left[0], len(self.left) - 1
            others = f", and {more} more" if more else ""
            raise CheckError(
                f"{first.path or 'the model itself'} stays stock: it {first.reason}{others}",
                f"leave it out with exclude=[{first.path!r}], or leave out strict=",
            )

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators that come in, each once."""
        return tuple(dict.fromkeys(swap.to for swap in self.swaps))

    def dumps(self, form: Literal["json", "yaml"]) -> str:
        """The plan as text that `read` takes."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        document = {"format": self.format, **document}
        if form == "json":
            return json.dumps(document, indent=2) + "\n"
        return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)


def make_plan(
    sites: Sequence[PoolSite],
    layers: str | int | None = "all",
    to: str = "soft",
    *,
    op: SiteOp | None = None,
    exclude: Iterable[str] = (),
    include_global: bool = False,
    geometry: Literal["keep", "paper"] = "keep",
    init: Init = "identity",
    swaps: Iterable[tuple[str, str]] = (),
    model: str | None = None,
    input_size: Sequence[int] | None = None,
    **options: Any,
) -> Plan:
    """The plan that replaces the selected sites by the operator `to`, such as "soft" or "lp:p=3".

    `layers` is a selector (see `surgery.selectors`); `op` narrows to "max", "avg" or "conv" sites; `exclude` are globs
    over paths; `include_global` also takes the head's global sites. Strided convolutions are among the sites if
    `find_pools` was asked for them; poolings of regions are replaced where they are named. `swaps` are more pairs of
    (selector, operator), which win over `layers`; with layers=None they are the whole plan. `options` are the
    operator's, as in beta=1.0. geometry="paper" also turns a stem pool 3/2/p1 into 2/2, as the published models do.
    `init` is of every swap.

    Raises NothingToReplaceError where the model has no such site, and InputError for a selector that matches nothing.
    """
    exclude = tuple(exclude)

    def candidates_for(operator: Operator) -> Candidates:
        windows: list[Scope] = ["window"] if operator.window else []
        heads: list[Scope] = ["global"] if include_global or not windows else []
        regions: list[Scope] = ["region"] if operator.region else []
        candidates = Candidates.of(sites, op=op, exclude=exclude, scopes=[*windows, *heads, *regions])
        if not candidates.named and not operator.window:
            raise NothingToReplaceError(f"nothing to replace: {operator.name} takes a head's global pooling alone")
        if not candidates.named:
            raise NothingToReplaceError(*_why_nothing(sites, op, include_global))
        return candidates

    chosen: dict[str, tuple[Operator, dict[str, Any]]] = {}
    left: dict[str, str] = {}

    def choose(selector: str, operator: Operator, given: dict[str, Any]) -> None:
        candidates = candidates_for(operator)
        left.update(left_stock(selector, candidates))
        chosen.update(dict.fromkeys(select(selector, candidates), (operator, given)))

    if layers is not None:
        operator, given = parse_operator(to)
        choose(str(layers), operator, {**given, **operator.check(options)})
    for selector, other in swaps:
        choose(selector, *parse_operator(other))
    if not chosen:
        raise NothingToReplaceError(*_why_nothing(sites, op, include_global))
    input_size = input_size or next((site.probed for site in sites), None)
    sites = [site.model_copy(update={"probed": None}) for site in sites]
    made = []
    for site in (site for site in sites if site.path in chosen):
        operator, given = chosen[site.path]
        _check_scope(site, operator)
        made.append(Swap(site=site, to=operator.name, options=given, init=init))
    if geometry == "paper":
        made = _paper_stem(made)
    owners = {swap.site.owner for swap in made if swap.site.kind == "functional"}
    kept = [s for s in sites if s.kind == "functional" and s.owner in owners and s.path not in chosen]
    plan = Plan(
        model=model,
        input_size=tuple(input_size) if input_size else None,
        swaps=tuple(made),
        kept=tuple(kept),
        left=tuple(Left(path=path, reason=reason) for path, reason in left.items() if path not in chosen),
    )
    for operator, _ in chosen.values():
        plan.use(operator)
    return plan


def _check_scope(site: PoolSite, operator: Operator) -> None:
    if site.scope == "global" and operator.head is None:
        raise InputError(
            f"{site.path} is a global site, which operator {operator.name!r} cannot replace",
            "leave out include_global=True, or replace it with soft",
        )


def _paper_stem(swaps: list[Swap]) -> list[Swap]:
    stem = next((n for n, swap in enumerate(swaps) if swap.site.geometry == _STEM and swap.site.op == "max"), None)
    if stem is None:
        raise InputError("no selected max pool is a 3x3/2 p1 stem", "leave out geometry='paper'")
    changed = swaps[stem].model_copy(update={"geometry": replace(_PAPER_STEM)})
    return [*swaps[:stem], changed, *swaps[stem + 1 :]]


def _why_nothing(sites: Sequence[PoolSite], op: SiteOp | None, include_global: bool) -> tuple[str, str | None]:
    """(message, hint) for a model without a site of the kind that was asked for."""
    windows = [site for site in sites if site.scope == "window" and site.only != "train"]
    heads = [site for site in sites if site.scope == "global" and site.replaceable]
    blocked = [site for site in windows if site.left_out]
    if blocked and len(blocked) == len(windows):
        where = blocked[0].path or "the model itself"
        return f"no pooling site can be replaced: {where} {blocked[0].left_out}", "poolswap inspect MODEL"
    if windows:
        what = f"{op} " if op else ""
        return f"no {what}pooling site is left to replace", "poolswap inspect MODEL lists them; widen op= and exclude="
    region = next((site.path for site in sites if site.scope == "region" and site.replaceable), None)
    if region is not None and not heads:
        return f"nothing to replace but {region}, which pools regions", f"name it: layers={region!r}, to='soft'"
    strided = "find its strided convolutions too: include=['convs']"
    hint = "replace the head's global pooling with include_global=True" if heads and not include_global else strided
    return "nothing to replace: the model's forward calls no window pooling", hint
