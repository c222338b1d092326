"""Whether there is a network, asked once and quickly: libraries retry for a minute before they give up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from poolswap.errors import first_line

_PATIENCE = 5.0  # seconds


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """For the length of a with block the Hugging Face Hub is left alone where it cannot be reached.

    What its cache holds is found all the same; anything else is an OSError at once.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def why_not(error: OSError) -> str:
    """What kept a download from succeeding, in a phrase."""
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        host = urlsplit(constants.ENDPOINT).hostname
        return "HF_HUB_OFFLINE forbids the network" if _forbidden() else f"{host} cannot be reached"
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return "their host cannot be reached"
    return f"they cannot be had: {first_line(error)}"


def way_out(error: OSError) -> str:
    """What to do about that."""
    once = "go online once to fill the cache"
    if not isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return once
    return f"unset HF_HUB_OFFLINE, and {once}" if _forbidden() else f"{once}; HF_HUB_OFFLINE=1 spares the next wait"


def _forbidden() -> bool:
    return bool(os.environ.get("HF_HUB_OFFLINE"))


def reachable(url: str) -> bool:
    """Whether the host of a URL takes connections. Behind a proxy only the proxy knows: True."""
    parts = urlsplit(url)
    if {parts.scheme, "all"} & set(getproxies()):
        return True
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True
