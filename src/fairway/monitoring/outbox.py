"""Windows on their way to the registry: kept in order until stored, the oldest dropped when there are too many."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from fairway.registry.records import Window

log = logging.getLogger(__name__)


class Outbox:
    """A bounded queue in front of a store that may be away.

    Parameters
    ----------
    flush : callable
        Stores one window, or raises.
    capacity : int
        Windows kept while ``flush`` fails.
    max_backoff_s : float
        Longest pause between attempts; it starts at one second and doubles.

    Attributes
    ----------
    dropped : int
        Windows lost so far.
    """

    def __init__(self, flush: Callable[[Window], object], *, capacity: int, max_backoff_s: float) -> None:
        self._flush = flush
        self._capacity = capacity
        self._max_backoff_s = max_backoff_s
        self._waiting: deque[Window] = deque()
        self._failures = 0
        self._retry_at = 0.0
        self._dropping = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, window: Window) -> None:
        """Queue a window. Drops the oldest if there are too many, and says so once per outage."""
        self._waiting.append(window)
        if len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self.dropped += 1
            if not self._dropping:
                self._dropping = True
                log.error(
                    "windows_dropped", extra={"kept": self._capacity, "reason": "could not be flushed for too long"}
                )

    def send(self, now: float, *, impatient: bool = False) -> None:
        """Store what waits, oldest first, until one fails. ``impatient``: try even if the last failure was just now."""
        if now < self._retry_at and not impatient:
            return
        while self._waiting:
            try:
                self._flush(self._waiting[0])
            except Exception as error:  # noqa: BLE001 (whatever storage raises, serving goes on and the window is kept)
                self._failed(now, error)
                return
            self._waiting.popleft()
            if self._failures:
                log.info("windows_flushed_again", extra={"failures": self._failures, "dropped": self.dropped})
            self._failures, self._retry_at, self._dropping = 0, 0.0, False

    def _failed(self, now: float, error: Exception) -> None:
        if not self._failures:
            log.warning("windows_not_flushed", extra={"windows": len(self._waiting), "reason": str(error)})
        self._retry_at = now + min(2.0 ** min(self._failures, 16), self._max_backoff_s)
        self._failures += 1
