"""Keep a server's resident memory small: few malloc arenas, and what starting up left free goes back to the system."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from typing import Any

_M_ARENA_MAX = -8
_COLLECT_EVERY = 20_000
"""Objects made and not yet freed. Requests in flight are thousands, which reference counts free without a collection."""
_ARENAS = 2


def few_arenas() -> None:
    """Before threads are started: glibc would give each an arena of its own, up to eight per core.

    A server's threads spend their time in engines, which have allocators of their own, so two arenas are enough: one for the
    event loop and one for the others.
    """
    with suppress(OSError, AttributeError):  # another C library
        _libc().mallopt(_M_ARENA_MAX, _ARENAS)


def settle() -> None:
    """Once everything is loaded: later garbage collections need not look at it, and pages that are free are given back."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 50)
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(None)
