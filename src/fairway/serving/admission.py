"""How much work to accept, so that what is accepted is answered in time. Pure: times are passed in."""

from __future__ import annotations

import math

from fairway.serving.cost import CostCurve

_DECREASE = 0.7


class Admission:
    """The room of one version's queue, in rows.

    Two things bound it. The learned time of an engine call says how long the last of so many rows would wait, and that may
    be ``max_wait_s`` at most. Where that turns out wrong, because the machine is busy with something else, the
    waits that were seen do: the limit shrinks by a third for each wait that was too long, and grows again by one batch
    per call (additive increase, multiplicative decrease).

    Parameters
    ----------
    max_rows : int
        Never more than this.
    max_wait_s : float
    max_batch : int
        Rows per call; never less room than this, so that there is always something to learn from.
    slots : int
        Calls at the same time.

    Attributes
    ----------
    room : int
        Rows that may wait.

    References
    ----------
    D.-M. Chiu, R. Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer
    networks", Computer Networks and ISDN Systems 17(1), 1989, doi:10.1016/0169-7552(89)90019-6.

    Examples
    --------
    >>> admission = Admission(max_rows=1000, max_wait_s=1.0, max_batch=8, slots=1)
    >>> admission.room
    1000
    >>> for _ in range(9):
    ...     admission.ran(rows=8, took_s=0.1, waited_s=0.0, now=0.0)
    >>> admission.room, round(admission.wait_s(20), 3)
    (80, 0.3)
    """

    def __init__(self, *, max_rows: int, max_wait_s: float, max_batch: int, slots: int) -> None:
        self._max_rows = max_rows
        self._max_wait_s = max_wait_s
        self._max_batch = max_batch
        self._slots = slots
        self.forget()

    def forget(self) -> None:
        """Begin anew: what was learned says nothing about what comes."""
        self._seen = float(self._max_rows)
        self._shrunk = -math.inf
        self._first = True
        self.curve = CostCurve()
        self.room = self._max_rows

    def ran(self, *, rows: int, took_s: float, waited_s: float, now: float) -> None:
        """Take note of one call: its rows, its seconds by the clock, and how long its first request had waited."""
        if self._first:  # it allocates and plans, and may take a thousand times what the others do
            self._first = False
            return
        self.curve.learn(rows, took_s * 1e6)
        if waited_s <= self._max_wait_s:
            self._seen = min(self._seen + self._max_batch, self._max_rows)
        elif now - self._shrunk > self._max_wait_s:  # what was accepted before the last decrease tells nothing new
            self._seen = max(self._seen * _DECREASE, self._max_batch)
            self._shrunk = now
        self._measure()

    def wait_s(self, rows: int) -> float:
        """Expected seconds until the last of ``rows`` rows has run; 0 while nothing is known."""
        each_us = self.curve.expect(self._max_batch)
        return math.ceil(rows / self._max_batch) * each_us / 1e6 / self._slots if each_us < math.inf else 0.0

    def call_s(self, rows: int) -> float:
        """Expected seconds of one call of ``rows`` rows; 0 while nothing is known."""
        us = self.curve.expect(rows)
        return us / 1e6 if us < math.inf else 0.0

    def _measure(self) -> None:
        each_s = self.curve.expect(self._max_batch) / 1e6
        calls = self._max_wait_s * self._slots / each_s if each_s > 0 else math.inf
        known = math.floor(calls + 1e-9) * self._max_batch if calls < self._max_rows else self._max_rows
        self.room = int(min(max(min(known, self._seen), self._max_batch), self._max_rows))
