"""The one table of pooling operators. A user's own come from an entry point or a file."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torch import nn

from poolswap.errors import InputError
from poolswap.models.userfile import load_object, split_reference
from poolswap.nn.ada import AdaPool, EDSCWPool
from poolswap.nn.blur import BlurPool
from poolswap.nn.dpp import DPPool
from poolswap.nn.gated import GatedPool
from poolswap.nn.head import HeadPool
from poolswap.nn.lip import LIPool
from poolswap.nn.lp import LpPool
from poolswap.nn.mixed import MixedPool
from poolswap.nn.s3 import S3Pool
from poolswap.nn.soft import SoftPool, soft_head
from poolswap.nn.spp import SpatialPyramidPool
from poolswap.nn.stochastic import StochasticPool
from poolswap.nn.stock import AvgPool, MaxPool
from poolswap.operators.operator import Form, Operator

__all__ = [
    "GROUP",
    "OPERATORS",
    "Operator",
    "all_operators",
    "find_operator",
    "load_operator",
    "parse_operator",
    "split_operators",
]

GROUP = "poolswap.operators"
_FILE = re.compile(r"(?P<name>.+\.py:\w+)(:(?P<tail>.*))?")

_SOFT = "sum_i w_i x_i,  w = softmax(beta x)"
_TABLE = (
    Operator(
        "soft",
        SoftPool,
        soft_head,
        summary="sum_i softmax(beta x)_i x_i over the window",
        formula=_SOFT,
        paper="Stergiou et al., ICCV 2021",
    ),
    Operator("max", MaxPool, summary="torch's max pooling", formula="max_i x_i"),
    Operator("avg", AvgPool, summary="torch's average pooling, padding excluded", formula="mean_i x_i"),
    Operator(
        "lp",
        LpPool,
        summary="power average of magnitudes, p fixed or learnt",
        formula="(mean_i |x_i|^p)^(1/p)",
        paper="Gulcehre et al., ECML 2014",
    ),
    Operator(
        "mixed",
        MixedPool,
        summary="learnt mixture of max and average, or a random choice",
        random=True,
        formula="a max_i x_i + (1 - a) mean_i x_i",
        paper="Lee et al., AISTATS 2016; Yu et al., RSKT 2014",
    ),
    Operator(
        "gated",
        GatedPool,
        summary="mixture of max and average that the window decides",
        formula="s max_i x_i + (1 - s) mean_i x_i,  s = sigmoid(<omega, x>)",
        paper="Lee et al., AISTATS 2016",
    ),
    Operator(
        "stochastic",
        StochasticPool,
        summary="an element drawn by its activation; the weighted mean in eval mode",
        random=True,
        formula="x_i with probability relu(x_i) / sum_j relu(x_j)",
        paper="Zeiler and Fergus, ICLR 2013",
    ),
    Operator(
        "s3",
        S3Pool,
        summary="max with stride 1, then random rows and columns; block means in eval mode",
        random=True,
        formula="max_i x_i at rows and columns drawn from each grid cell",
        paper="Zhai et al., CVPR 2017",
    ),
    Operator(
        "dpp",
        DPPool,
        summary="mean weighted by the distance from the blurred mean",
        formula="sum_i w_i x_i / sum_i w_i,  w_i = alpha + rho(x_i - xbar)^lambda",
        paper="Saeedan et al., CVPR 2018",
    ),
    Operator(
        "lip",
        LIPool,
        summary="mean weighted by a learnt importance",
        formula="sum_i e^G_i x_i / sum_i e^G_i,  G = 12 sigmoid(norm(conv(x)))",
        paper="Gao et al., ICCV 2019",
    ),
    Operator(
        "em",
        SoftPool,
        soft_head,
        summary="soft, by its name in AdaPool",
        formula=_SOFT,
        paper="Stergiou and Poppe, 2021",
    ),
    Operator(
        "edscw",
        EDSCWPool,
        summary="mean weighted by the similarity to the window's mean",
        formula="sum_i w_i x_i,  w = softmax(2 |x xbar| / (x^2 + xbar^2))",
        paper="Stergiou and Poppe, 2021",
    ),
    Operator(
        "ada",
        AdaPool,
        summary="learnt mixture of edscw and em",
        formula="b edscw(x) + (1 - b) em(x)",
        paper="Stergiou and Poppe, 2021",
    ),
    Operator(
        "blur",
        BlurPool,
        summary="max with stride 1, then a binomial low-pass; the low-pass alone for average pools",
        formula="sum_j b_j max_i x_(j+i)",
        paper="Zhang, ICML 2019",
    ),
    Operator(
        "spp",
        head=SpatialPyramidPool,
        summary="a head's global pooling: maxima of a pyramid of grids, with a new classifier",
        formula="max_i x_i of each cell of each level's grid",
        paper="He et al., TPAMI 2015",
    ),
)
OPERATORS = {operator.name: operator for operator in _TABLE}


def find_operator(name: str) -> Operator:
    """The operator of this name: built in, from an installed package, or from a file that was already loaded.

    Runs no file: a name in a plan or a checkpoint is data. Raises InputError with the closest names.
    """
    if name in OPERATORS:
        return OPERATORS[name]
    if split_reference(name) is not None:
        raise InputError(
            f"{name} is an operator of your own file, which has not been run",
            f"name it yourself: to={name!r}, beside a plan too; for a checkpoint, trust_code=True",
        )
    installed = _entry_points()
    if name in installed:
        return _add(name, _loaded(installed[name]))
    known = [*OPERATORS, *installed]
    raise InputError(
        f"unknown pooling operator {name!r}", f"try one of: {', '.join(get_close_matches(name, known, n=3) or known)}"
    )


def load_operator(name: str) -> Operator:
    """The operator of this name; path/to/pool.py:MyPool runs that file, once. Raises InputError."""
    if name not in OPERATORS and split_reference(name) is not None:
        _add(name, load_object(name))
    return find_operator(name)


def all_operators() -> dict[str, Operator]:
    """Every operator by name: the built-in ones, then those of installed packages, then files that were loaded."""
    for name in _entry_points():
        find_operator(name)
    return dict(OPERATORS)


def parse_operator(text: str) -> tuple[Operator, dict[str, Any]]:
    """`soft`, `lp:p=3,learn=true`, `path/to/pool.py:MyPool:size=3` -> (operator, checked options). Raises InputError.

    The text is what a user typed, so a file that it names is run.
    """
    file = _FILE.fullmatch(text)
    name, _, tail = (file["name"], ":", file["tail"] or "") if file else text.partition(":")
    operator = load_operator(name)
    options = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{text!r}: option {item!r} has no value", f"write {name}:{key}=VALUE")
        options[key.strip()] = value.strip()
    return operator, operator.check(options)


def split_operators(text: str) -> list[str]:
    """`max,lp:p=3,learn=true,soft` -> its operators, as `parse_operator` takes them; `all` is every one for windows."""
    if text == "all":
        first: dict[Form, str] = {}
        for name, operator in all_operators().items():
            if operator.window is not None:
                first.setdefault(operator.window, name)
        return list(first.values())
    parts: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        is_option = "=" in part and ":" not in part.partition("=")[0]
        if is_option and parts:
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        package = point.dist.name if point.dist else point.value
        raise InputError(f"operator {point.name!r} of {package} cannot be loaded: {error}") from error


def _add(name: str, cls: Any) -> Operator:
    """A user's object in the table: an Operator, or a module class, which takes a HeadSite if it is a HeadPool."""
    if isinstance(cls, Operator):
        OPERATORS[name] = replace(cls, name=name)
    elif isinstance(cls, type) and issubclass(cls, nn.Module):
        lines = (cls.__doc__ or "").strip().splitlines()
        summary = lines[0] if lines else cls.__name__
        if issubclass(cls, HeadPool):
            OPERATORS[name] = Operator(name, head=cls, summary=summary)
        else:
            OPERATORS[name] = Operator(name, window=cls, summary=summary)
    else:
        raise InputError(
            f"{name} is not a pooling module class", "write class MyPool(poolswap.nn.WindowPool) with a forward"
        )
    return OPERATORS[name]
