"""The selector language of `layers`.

    first, last, all      the first, the last, every candidate
    N, first:N, last:N    the first or last N in call order
    #1                    the site with that number, as `poolswap inspect` prints it
    layer1.*              a glob over paths

Parts are joined by commas. A part that matches nothing is an error that names it. A module that is called several times
is one layer with several sites: it counts once, and choosing one of its sites chooses the module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from poolswap.errors import InputError, closest, nearest
from poolswap.surgery.calls import SiteOp
from poolswap.surgery.sites import PoolSite, Scope
from poolswap.surgery.syntax import ENDS, parts_of

_COUNT = re.compile(r"(?:(first|last):)?(\d{1,9})")


@dataclass(frozen=True)
class Candidates:
    """The sites that a selector counts, and all sites, so that a miss can say why."""

    sites: tuple[PoolSite, ...]
    everything: tuple[PoolSite, ...]
    named: frozenset[str]  # paths that a number or a glob may also choose: sites that `all` leaves out
    why_not: dict[str, str]
    left_by_all: dict[str, str]  # paths that `all` would take, and why it cannot or does not

    @classmethod
    def of(
        cls,
        sites: Sequence[PoolSite],
        *,
        op: SiteOp | None = None,
        exclude: Iterable[str] = (),
        scopes: Sequence[Scope] = ("window",),
    ) -> Candidates:
        """Sites of these scopes that can be replaced, of the right kind and not excluded."""
        patterns = tuple(exclude)
        for pattern in patterns:
            if not any(_matches(site, pattern) for site in sites):
                raise InputError(f"exclude={pattern!r} matches no site", _closest(pattern, sites))
        why_not: dict[str, str] = {}
        for site in sites:
            reason = _reason(site, op, patterns, scopes)
            if reason is not None:
                why_not[site.path] = reason
        usable = tuple(site for site in sites if site.path not in why_not)
        named = frozenset(site.path for site in usable)
        counted = tuple(site for site in usable if site.left_out is None)
        wanted = (site for site in sites if _unwanted(site, op, patterns, scopes) is None)
        # Regions are replaced by name alone: nobody who says `all` misses them.
        reasons: dict[str, list[str]] = {}  # poolings that are no calls have their owner's path, several of them one
        for site in wanted:
            if site.left_out and site.scope != "region" and site.left_out not in reasons.setdefault(site.path, []):
                reasons[site.path].append(site.left_out)
        left_by_all = {path: "; it ".join(found) for path, found in reasons.items() if found}
        return cls(counted, tuple(sites), named, why_not, left_by_all)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths that counts go over, in call order, each once."""
        return tuple(dict.fromkeys(site.path for site in self.sites))


def select(selector: str, candidates: Candidates) -> tuple[str, ...]:
    """Paths that the selector chooses, in the order of the sites. Raises InputError for a part that matches nothing."""
    chosen = {path for part in parts_of(selector) for path in _select(part, candidates)}
    return tuple(dict.fromkeys(site.path for site in candidates.everything if site.path in chosen))


def left_stock(selector: str, candidates: Candidates) -> dict[str, str]:
    """{path: reason} of the sites that the selector's `all` and globs speak of, but cannot choose or do not."""
    parts = parts_of(selector)
    spoken = "all" in parts
    return {
        site.path: candidates.left_by_all[site.path]
        for site in candidates.everything
        if site.path in candidates.left_by_all
        and (spoken or (not site.replaceable and any(_matches(site, part) for part in parts)))
    }


def _select(part: str, candidates: Candidates) -> Sequence[str]:
    paths = candidates.paths
    if part == "all":
        return paths
    if part in ("first", "last"):
        return paths[:1] if part == "first" else paths[-1:]
    if count := _COUNT.fullmatch(part):
        return _counted(part, count.group(1) or "first", int(count.group(2)), paths)
    if part.startswith("#"):
        found = [site for site in candidates.everything if site.number == int(part[1:])]
        hint = f"the sites are #1 to #{len(candidates.everything)}: poolswap inspect MODEL lists them"
    else:
        found = [site for site in candidates.everything if _matches(site, part)]
        hint = _closest(part, candidates.everything)
    if not found:
        raise InputError(f"the selector {part!r} matches no pooling site", hint)
    usable = [site.path for site in found if site.path in candidates.named]
    if not usable:
        raise InputError(f"the selector {part!r} matches only {found[0].path}, {candidates.why_not[found[0].path]}")
    return usable


def _counted(part: str, end: str, number: int, paths: Sequence[str]) -> Sequence[str]:
    if not 1 <= number <= len(paths):
        raise InputError(
            f"the selector {part!r} asks for {number} of {len(paths)} layers",
            f"a number from 1 to {len(paths)}, or all",
        )
    return paths[:number] if end == "first" else paths[-number:]


def _matches(site: PoolSite, pattern: str) -> bool:
    return any(fnmatchcase(path, pattern) for path in (site.path, *site.aliases))


def _reason(site: PoolSite, op: SiteOp | None, exclude: Sequence[str], scopes: Sequence[Scope]) -> str | None:
    if not site.replaceable:
        return f"which cannot be replaced: it {site.reason}"
    return _unwanted(site, op, exclude, scopes)


def _unwanted(site: PoolSite, op: SiteOp | None, exclude: Sequence[str], scopes: Sequence[Scope]) -> str | None:
    if site.scope not in scopes:
        hints = {"global": "a global site: add include_global=True", "region": "which pools regions: to='soft' does"}
        return hints.get(site.scope, "a window site")
    if op is not None and site.op != op:
        kind = "a strided convolution" if site.op == "conv" else f"{site.op} pooling"
        return f"which is {kind}, not {op}"
    if any(_matches(site, pattern) for pattern in exclude):
        return "which is excluded"
    return None


def _closest(text: str, sites: Sequence[PoolSite]) -> str:
    if word := nearest(text, ENDS):
        return word
    paths = [site.path for site in sites]
    close = closest(text, paths, cutoff=0.4) or paths[:3]
    return f"paths like {', '.join(close)}: poolswap inspect MODEL lists them" if close else "the model has no site"
