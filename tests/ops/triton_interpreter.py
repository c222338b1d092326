"""Run launches on the CPU under Triton's interpreter, beside the real compiler in one process.

TRITON_INTERPRET=1 would turn every kernel of the process into an interpreted one. Here copies of the functions are
interpreted instead, in a namespace of their own; the kernels themselves stay compilable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from types import FunctionType
from typing import Any
from unittest import mock

import numpy as np
from triton.runtime.interpreter import InterpretedFunction, ReduceOps
from triton.runtime.jit import ConstexprFunction, JITFunction

from poolswap.ops.triton.launch import Launch


def run(launches: Iterator[Launch]) -> None:
    """Stands in for `poolswap.ops.triton.launch.run`; the tensors are on the CPU.

    Not for threads: while it runs, `triton.language` is the interpreter's.
    """
    for launch in launches:
        kernel = _interpreted(launch.kernel.fn.__module__)[launch.kernel.__name__]
        with np.errstate(all="ignore"), mock.patch.object(ReduceOps, "generic_reduce", _reduce_by_halves):
            kernel[(launch.grid,)](**launch.arguments)


@cache
def _interpreted(module: str) -> dict[str, Any]:
    """The module's names, every Triton function among them replaced by one that the interpreter can call.

    So are the functions that these call from the modules they come from.
    """
    names = dict(vars(sys.modules[module]))
    for origin in {value.fn.__module__ for value in names.values() if isinstance(value, JITFunction)}:
        names = vars(sys.modules[origin]) | names
    jitted = {name: value for name, value in names.items() if isinstance(value, JITFunction)}
    copies = {name: InterpretedFunction(_copy(value.fn, names)) for name, value in jitted.items()}
    for name, copy in copies.items():
        # An InterpretedFunction patches triton.language; what a kernel calls must not do so once more.
        names[name] = copy.rewrite()
        names[name].fn = names[name]  # tl.reduce looks for it
    names |= {name: value.fn for name, value in names.items() if isinstance(value, ConstexprFunction)}
    return copies


def _copy(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copy.__module__ = function.__module__
    copy.__annotations__ = function.__annotations__
    return copy


def _reduce_by_halves(self: ReduceOps, inputs: tuple[Any, ...]) -> list[Any]:
    """A reduction of one tensor as a device does it; the interpreter's own calls the combination for every element."""
    (values,) = inputs
    data = np.moveaxis(values.handle.data, self.axis, 0)
    while len(data) > 1:
        halves = (self.to_tensor(half, values.dtype) for half in np.split(data, 2))
        data = self.combine_fn.fn(*halves).handle.data
    return [self.to_tensor(data[0], values.dtype)]
