"""What a scheduler is told, and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from fairway.core.errors import FairwayError
from fairway.serving.joining import Run


class BatchingSettings(msgspec.Struct, frozen=True):
    """How one version is scheduled.

    Attributes
    ----------
    max_batch : int
        Rows per engine call.
    batching : bool
        Whether requests may share a call at all. If not, each runs alone and whole.
    slots : int
        Engine calls that may run at the same time on threads.
    max_requests, max_rows : int
        Limits of the queue.
    inline_us : float
        Expected microseconds up to which a batch runs on the event loop.
    max_queue_wait_s : float
        Refuse what would wait longer for the engine.
    max_wait_us : float
        How long a batch may wait for more where that pays; 0 is never.
    priority_levels, default_priority : int
        See :func:`~fairway.serving.queues.level_of`; no levels is no priorities.
    """

    max_batch: int = 64
    batching: bool = True
    slots: int = 1
    max_requests: int = 2048
    max_rows: int = 65536
    inline_us: float = 250.0
    max_queue_wait_s: float = 10.0
    max_wait_us: float = 0.0
    priority_levels: int = 0
    default_priority: int = 0


class Batch(msgspec.Struct, frozen=True, eq=False):
    """What the scheduler tells its listener after each engine call.

    ``ended`` is on :func:`time.perf_counter`. ``earlier_s`` is how long before this call the first ones of its cut requests
    had started.
    """

    run: Run
    rows: int
    raw: bool
    took_s: float
    latencies_s: Sequence[float]
    failures: Sequence[FairwayError]
    ended: float = 0.0
    earlier_s: float = 0.0


class Listener(Protocol):
    """Called on the event loop; must not raise."""

    def ran(self, batch: Batch) -> None:
        """One engine call ended; its callers have their answers."""
        ...

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        """One request got no engine call, after ``waited_s`` in the queue."""
        ...
