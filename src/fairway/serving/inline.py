"""Whether a model may run on the event loop: not where its calls wait, for a device or another machine, say."""

from __future__ import annotations

import time

from fairway.serving.cost import BLOCKING_US

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # no Linux
    getrusage = None  # type: ignore[assignment]

_SLOW = 8
_WATCHED = 64
_MAX_WAITS = 3
_AWAY = 256
_MAX_AWAY = 8192


class Inline:
    """Notices calls that keep the event loop waiting although they cost its thread little.

    The cost of a call is its thread's own time, so a call that sleeps looks cheap. The clock tells, but it also counts what
    other processes took of the machine. So after a call that was slow by the clock the next ones are watched: where three of
    them are slow, too, and gave the processor away by themselves, the model runs on threads. It is tried on the loop again
    after a few hundred calls, later after thousands.

    Parameters
    ----------
    inline_us : float
        What a call on the loop is expected to take at most.

    Attributes
    ----------
    slow_s : float
        Calls on the loop that took longer by the clock are to be told to :meth:`was_slow`.
    away : int
        Calls that are still to run on threads.
    watched : int
        Calls on the loop that are still to be told to :meth:`saw`, however long they took.
    """

    def __init__(self, inline_us: float) -> None:
        self.slow_s = max(min(_SLOW * inline_us, BLOCKING_US), inline_us) / 1e6
        self.away = 0
        self.watched = 0
        self._waits = 0
        self._next = _AWAY

    def was_slow(self) -> None:
        """A call was slow: watch the next ones, unless that is being done."""
        self.watched = self.watched or _WATCHED

    def saw(self, took_s: float, gave_way: bool) -> None:
        """A watched call took ``took_s``; ``gave_way`` if its thread waited of its own accord."""
        self.watched -= 1
        if took_s > self.slow_s and gave_way:
            self.watched = _WATCHED
            self._waits += 1
            if self._waits >= _MAX_WAITS:
                self.away, self.watched = self._next, 1  # one such call will do, next time
                self._next = min(self._next * 2, _MAX_AWAY)
                self._waits = _MAX_WAITS - 1
        elif not self.watched:
            self._waits, self._next = 0, _AWAY


def waits_of_thread() -> float:
    """How often this thread gave the processor away by itself; rises with time where the system does not say."""
    return time.perf_counter() if getrusage is None else getrusage(RUSAGE_THREAD).ru_nvcsw
