"""What happened, told to whoever listens: the audit trail's events, and what serving tells monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from fairway.core.tensors import Tensors


class Action(StrEnum):
    """What a registry event records."""

    REGISTERED = "registered"
    ALIASED = "aliased"
    RELEASED = "released"
    WEIGHTED = "weighted"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


class Served(msgspec.Struct, frozen=True, eq=False):
    """One batch that one version answered, or failed to.

    Attributes
    ----------
    model, version : str
    rows : int
    inputs, outputs : mapping of name to array, or None
        As callers sent and got them, rows joined; ``None`` where they skipped processing. ``outputs`` is ``None`` too when
        the engine raised.
    latencies_ms : sequence of float
        Per request, failed ones included: from decoded to answered.
    errors : int
        Requests that got no answer through no fault of the caller.
    """

    model: str
    version: str
    rows: int
    inputs: Tensors | None
    outputs: Tensors | None
    latencies_ms: Sequence[float]
    errors: int = 0


class EventSink(Protocol):
    """Whoever listens to a server. Called on the event loop: must not block and must not raise."""

    def served(self, event: Served) -> None:
        """Take note of one batch. The arrays must not be written to."""
        ...
