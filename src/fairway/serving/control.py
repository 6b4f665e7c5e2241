"""Changes that callers ask for while a server runs: models, log and trace settings, regions of shared memory.

Where there are several workers, one change at a time is made on all of them, in two steps: each makes everything ready,
and says whether it could; then all go live, or none does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

import msgspec

from fairway.core.errors import KINDS, FairwayError, rebuilt

Kind: TypeAlias = Literal["load", "unload", "trace", "log", "register", "unregister"]


class Change(msgspec.Struct, frozen=True):
    """One change, as it is told to every worker.

    Attributes
    ----------
    does : str
    name : str
        Of the model or region; empty: of the server, or all regions.
    values : dict
        What comes with it, as in JSON.
    """

    does: Kind
    name: str = ""
    values: dict[str, Any] = {}


Agreed: TypeAlias = Callable[[], Awaitable[None]]
"""Awaited by whoever has made a change ready, before it goes live. Raises if it must not."""

Everywhere: TypeAlias = Callable[[Change], Awaitable[None]]
"""Makes a change on all workers, or raises the error that kept one of them from it."""


class Undone(Exception):
    """Another worker could not make the change, so this one does not either."""


async def alone() -> None:
    """There is nobody else to agree."""


def error_of(code: str, message: str) -> FairwayError:
    """What another process raised, as if it had been raised here."""
    if code in KINDS:
        return rebuilt(KINDS[code], message)
    error = FairwayError(message)  # of a plug-in
    error.code = code
    return error


class Journal:
    """What a new worker must be told to be like the others: the changes that still matter, each once.

    Examples
    --------
    >>> journal = Journal()
    >>> for change in (Change("unload", "digits"), Change("unload", "other"), Change("load", "digits")):
    ...     journal.note(change)
    >>> [(change.does, change.name) for change in journal.changes()]
    [('unload', 'other')]
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Change] = {}

    def note(self, change: Change) -> None:
        """A change that was made."""
        match change.does:
            case "load" | "unload":
                self._kept.pop(("model", change.name), None)
                if change.does == "unload":
                    self._kept.pop(("trace", change.name), None)
                if change.does == "unload" or change.values:  # a new worker has loaded the rest as it started
                    self._kept["model", change.name] = change
            case "register":
                self._kept["region", change.name] = change
            case "unregister":
                gone = [key for key in self._kept if key[0] == "region" and change.name in ("", key[1])]
                for key in gone:
                    del self._kept[key]
            case _:
                self._add(change)

    def changes(self) -> list[Change]:
        """In the order in which to make them: trace settings of models come last, when those are there."""
        return sorted(self._kept.values(), key=lambda change: change.does == "trace" and bool(change.name))

    def _add(self, change: Change) -> None:
        """Settings: what was set before goes on to hold where it is not set anew."""
        key = change.does, change.name
        before = self._kept.get(key)
        values = change.values if before is None else before.values | change.values
        self._kept[key] = Change(change.does, change.name, values)
