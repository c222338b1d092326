"""The command that comes next, as it works when it is pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def resumable(hint: str) -> Iterator[None]:
    """For the length of a with block, Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(hint) from None


def following(command: str, checkpoint: Path | str, *options: str) -> str:
    """`poolswap verify 'my nets/soft.safetensors' --trust-code`: quoted, and with the trust that the file needs."""
    from poolswap.load import checkpoint_of
    from poolswap.manifest import read_manifest

    own = checkpoint_of(checkpoint)
    trust = ["--trust-code"] if own and read_manifest(own).user_files else []
    return shlex.join(["poolswap", command, str(checkpoint), *options, *trust])
