"""A budget of memory over all versions that a process has loaded: who has to go so that another one fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from fairway.core.errors import MemoryExceeded

Key: TypeAlias = tuple[str, str]
"""A model's name and version."""

_STATM = Path("/proc/self/statm")
_MB = 10**6


class Holding(msgspec.Struct, frozen=True):
    """What one loaded version takes.

    Attributes
    ----------
    size_bytes : int
    used_at : float
        When it last ran, on any clock that all holdings share.
    pinned : bool
        Whether it must stay: it takes part in a release, or could not be loaded again.
    """

    size_bytes: int
    used_at: float
    pinned: bool = False


def make_room(limit_bytes: int, newcomer: Key, need_bytes: int, holdings: Mapping[Key, Holding]) -> list[Key]:
    """Which versions to unload, longest unused first, so that ``newcomer`` fits, and none without need. Pure.

    Parameters
    ----------
    limit_bytes : int
        The whole budget; 0 is none, and nobody has to go.
    newcomer : tuple of name and version
    need_bytes : int
    holdings : mapping
        What is loaded, the newcomer excepted.

    Raises
    ------
    MemoryExceeded
        If it would not fit even then: the message names the budget, the need and what is loaded.

    Examples
    --------
    >>> held = {("a", "1"): Holding(60, used_at=2.0), ("b", "1"): Holding(30, used_at=1.0)}
    >>> make_room(100, ("c", "1"), 40, held)
    [('b', '1')]
    >>> make_room(100, ("c", "1"), 50, held)
    [('a', '1')]
    """
    if not limit_bytes:
        return []
    free = limit_bytes - sum(holding.size_bytes for holding in holdings.values())
    movable = sorted((holding.used_at, key) for key, holding in holdings.items() if not holding.pinned)
    leaving: list[Key] = []
    while free < need_bytes and movable:
        _, key = movable.pop(0)
        leaving.append(key)
        free += holdings[key].size_bytes
    if free < need_bytes:
        raise MemoryExceeded(_refusal(limit_bytes, newcomer, need_bytes, holdings))
    return _without_needless(leaving, free - need_bytes, holdings)


def resident_bytes() -> int:
    """Memory of this process that is in RAM now."""
    try:
        import resource

        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux
        import psutil

        return int(psutil.Process().memory_info().rss)


def as_mb(size_bytes: float) -> str:
    """For messages: ``1,234.5 MB``."""
    return f"{size_bytes / _MB:,.1f} MB"


def _without_needless(leaving: list[Key], spare: int, holdings: Mapping[Key, Holding]) -> list[Key]:
    """A large one that went last may have made room enough for small ones that went before: the newest of them stay."""
    kept: set[Key] = set()
    for key in reversed(leaving[:-1]):
        if holdings[key].size_bytes <= spare:
            spare -= holdings[key].size_bytes
            kept.add(key)
    return [key for key in leaving if key not in kept]


def _refusal(limit_bytes: int, newcomer: Key, need_bytes: int, holdings: Mapping[Key, Holding]) -> str:
    loaded = ", ".join(
        f"{name}:{version} {as_mb(holding.size_bytes)}{' (in use)' if holding.pinned else ''}"
        for (name, version), holding in sorted(holdings.items())
    )
    return (
        f"{newcomer[0]}:{newcomer[1]} needs {as_mb(need_bytes)}, and the budget is {as_mb(limit_bytes)} "
        f"(loaded: {loaded or 'nothing'}); raise memory_mb in [serve], or serve fewer models here"
    )
