"""What a model may take of the machine: what asks for more is refused before it has it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from poolswap.errors import InputError

VARIABLE = "POOLSWAP_MAX_MEMORY"
_SHARE = 0.75
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SMALLER = "give a smaller num_classes=, in_chans= or model_args="
_HINT = f"allow more with {VARIABLE}=64G, or give a smaller size"

# Ten times and more what the largest architectures of timm and torchvision have.
MOST_MODULES = 20_000
MOST_CALLS = 100_000


class TooLargeError(InputError):
    """More memory, modules or calls than a model may take."""


def memory_limit() -> int:
    """Bytes that a model and its activations may take: POOLSWAP_MAX_MEMORY, or three quarters of the machine's."""
    given = os.environ.get(VARIABLE)
    return parse_bytes(given) if given else int(_SHARE * _machine())


def parse_bytes(text: str) -> int:
    """ "8G", "500M" or a number of bytes -> bytes. Raises InputError."""
    match = re.fullmatch(r"(\d{1,18})\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise InputError(f"{text!r} is not a size of memory", "write for example 8G or 500M")
    return int(match[1]) * _UNITS[match[2].upper()]


@contextmanager
def building() -> Iterator[None]:
    """Modules that are made in the block are counted, and their parameters' bytes, before these are filled.

    Raises TooLargeError beyond the budget, and where the machine has not even that much.
    """
    limit, modules, held = memory_limit(), 0, 0

    def module_made(parent: nn.Module, name: str, module: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > MOST_MODULES:
            raise TooLargeError(f"the model has more than {MOST_MODULES:,} modules", "give fewer layers")

    def parameter_made(parent: nn.Module, name: str, parameter: Any) -> None:
        nonlocal held
        held += parameter.nbytes if isinstance(parameter, Tensor) else 0
        if held > limit:
            raise TooLargeError(f"the model's weights take more than {_gigabytes(limit)}", _HINT)

    hooks = (
        register_module_module_registration_hook(module_made),
        register_module_parameter_registration_hook(parameter_made),
    )
    try:
        yield
    except Exception as error:
        if _out_of_memory(error) or _out_of_memory(error.__cause__):
            raise TooLargeError("the model's weights take more memory than there is", _SMALLER) from error
        raise
    finally:
        for hook in hooks:
            hook.remove()


class Meter(TorchDispatchMode):
    """Counts the calls of a forward on the meta device, and the bytes that its tensors would hold at once.

    Raises TooLargeError beyond the budget.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.calls, self.held = memory_limit(), 0, 0
        self._users: Counter[int] = Counter()  # tensors alive, by their storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise TooLargeError(f"a forward makes more than {MOST_CALLS:,} calls of torch", "give smaller windows")
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        if self.held > self.limit:
            raise TooLargeError(f"a forward takes more than {_gigabytes(self.limit)}", _HINT)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._users[key]:
            self.held += size
        self._users[key] += 1
        finalize(tensor, self._gone, key, size).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            self.held -= size


def _out_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _machine() -> int:
    """Bytes of memory of the machine, or of the container where that has fewer."""
    sizes = []
    with suppress(ValueError, OSError, AttributeError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes, default=8 * 2**30)


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
