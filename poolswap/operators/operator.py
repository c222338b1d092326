"""One pooling operator as the commands see it: its options, read off its classes, and how to make one for a site."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter
from typing import Any, get_origin

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from poolswap.errors import InputError, in_words, nearest
from poolswap.nn.site import HeadSite, RegionSite, WindowSite

Form = Callable[..., nn.Module]
Site = WindowSite | HeadSite | RegionSite

# Of the magnitude of an option: it will be held in float32, and divided by.
_SMALLEST, _LARGEST = 1e-30, 1e30


@dataclass(frozen=True)
class Operator:
    """One pooling operator: its name, and what makes it in the place of a window pool, of a head's, and of regions.

    `window` takes a WindowSite, `head` a HeadSite, `region` a RegionSite, and all take options by name: each a module
    class, or a function that gives a module. Without one of them the operator replaces no such site. A class says the
    rest: the first line of its docstring is its formula, `paper` and `draws` are attributes of it.
    """

    name: str
    window: Form | None = None
    head: Form | None = None
    region: Form | None = None

    @property
    def formula(self) -> str:
        """What is computed of a window (or a map) x."""
        return (inspect.getdoc(self._class) or "").partition("\n")[0].rstrip(".") if self._class else ""

    @property
    def paper(self) -> str:
        """Whose it is; empty where nobody says so."""
        return getattr(self._class, "paper", "")

    @property
    def draws(self) -> bool:
        """Whether it draws, or has an option to draw, from torch's generator in train mode."""
        return getattr(self._class, "draws", False)

    @property
    def subsamples(self) -> bool:
        """Whether it works with stride 1 and keeps every stride-th element."""
        return getattr(self._class, "subsamples", False)

    @cached_property
    def options(self) -> dict[str, Parameter]:
        """Options a user may set, by name, with resolved annotations and defaults."""
        forms = (form for form in (self.window, self.head, self.region) if form is not None)
        return {parameter.name: parameter for form in forms for parameter in _options(form)}

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options converted to their annotated types, 1+2+4 to a tuple. Raises InputError for what does not fit."""
        checked = {}
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                hint = nearest(name, self.options) or f"its options: {known}"
                raise InputError(f"operator {self.name!r} has no option {name!r}", hint)
            try:
                wanted = self.options[name].annotation
                items = value.split("+") if isinstance(value, str) and get_origin(wanted) is tuple else value
                checked[name] = TypeAdapter(wanted).validate_python(items)
            except ValidationError as error:
                wrong = "; or ".join(in_words(one["msg"]) for one in error.errors())
                raise self._refusal(name, value, wrong) from None
            if isinstance(checked[name], float) and not _is_moderate(checked[name]):
                room = f"must be 0, or between {_SMALLEST:g} and {_LARGEST:g} in magnitude"
                raise self._refusal(name, value, room)
        return checked

    def _refusal(self, name: str, value: Any, wrong: str) -> InputError:
        default = self.options[name].default
        hint = self.name if default in (None, Parameter.empty) else f"{self.name}:{name}={default}"
        return InputError(f"option {name}={value} of operator {self.name!r}: {wrong}", hint)

    def make(self, site: Site, options: Mapping[str, Any] | None = None) -> nn.Module:
        """A module for the site, which owns at least one tensor.

        A head that pools by windows of a fixed size keeps them where the operator has windows at all. Raises InputError
        for a site that the operator does not replace, and for options that it does not take there.
        """
        form, place = self._form(site)
        checked = self.check(options or {})
        unfit = checked.keys() - {parameter.name for parameter in _options(form)}
        if unfit:
            raise InputError(f"operator {self.name!r} takes no option {min(unfit)!r} at {place}", "leave it out there")
        try:
            module = form(place, **checked)
        except ValueError as error:
            raise InputError(f"operator {self.name!r} at {place}: {error}") from None
        _own_a_tensor(module, place, checked)
        return module

    def _places(self) -> dict[type[Site], tuple[Form | None, str]]:
        """What makes the module for each kind of site, and how the kind is called."""
        head = (self.head, "the global pooling of a head")
        return {WindowSite: (self.window, "windows"), HeadSite: head, RegionSite: (self.region, "regions")}

    @property
    def _class(self) -> Form | None:
        return self.window or self.head

    def _form(self, site: Site) -> tuple[Form, Site]:
        """What makes the module, and what it is told of the site."""
        form, *_ = (form for kind, (form, _) in self._places().items() if isinstance(site, kind))
        if form is None:
            takes = " and ".join(place for form, place in self._places().values() if form is not None) + " alone"
            raise InputError(f"operator {self.name!r} replaces {takes}, and {site} is none", "poolswap operators")
        if isinstance(site, HeadSite) and site.windows and self.window:
            known = WindowSite(site.windows, channels=site.channels, stock=site.stock, start=site.start)
            return self.window, known
        return form, site


def _is_moderate(value: float) -> bool:
    """Whether float32 has room for it; what is not finite the operators refuse in their own words."""
    return value == 0 or not math.isfinite(value) or _SMALLEST <= abs(value) <= _LARGEST


def _options(form: Form) -> list[Parameter]:
    """The parameters after the site."""
    try:
        parameters = list(inspect.signature(form, eval_str=True).parameters.values())[1:]
    except NameError:  # an annotation that only a type checker can read: the defaults say enough
        parameters = [p.replace(annotation=_kind(p)) for p in list(inspect.signature(form).parameters.values())[1:]]
    return [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def _kind(parameter: Parameter) -> Any:
    return Any if parameter.default in (None, parameter.empty) else type(parameter.default)


def _own_a_tensor(module: nn.Module, site: Site, options: Mapping[str, Any]) -> None:
    """Give an operator without state its settings as a persistent buffer, named after its class.

    Otherwise its checkpoint would have the stock model's keys, and load there silently.
    """
    if not module.state_dict():
        sizes = (
            site.geometry.kernel_size
            if isinstance(site, WindowSite)
            else (2 if isinstance(site, RegionSite) else site.dims,)
        )
        numbers = [float(value) for value in options.values() if isinstance(value, int | float)]
        module.register_buffer(type(module).__name__, torch.tensor([*map(float, sizes), *numbers]))
