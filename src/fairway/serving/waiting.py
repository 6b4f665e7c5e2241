"""Whether a batch should wait for more requests. Pure: times are passed in."""

from __future__ import annotations

import math

from fairway.serving.cost import CostCurve

_PAYS = 0.65
_DENSE = 4
_FORGET = 0.8


class Patience:
    """Learns how densely requests come, and says how long a batch that could run now should wait.

    Waiting pays if a call of two rows costs little more than a call of one (at most 1.3 times), as on an accelerator, and if at
    least four requests are expected within the time of one call. Then a batch waits a quarter of the time that a call
    takes, and never more than ``max_wait_s``. Where nobody came meanwhile (all callers wait for answers, say), the next one
    waits half as long, down to a sixteenth.

    Parameters
    ----------
    max_wait_s : float

    Examples
    --------
    >>> flat, patience = CostCurve(), Patience(0.005)
    >>> for rows in (1, 8, 64) * 5:
    ...     flat.learn(rows, 4000 + 5 * rows)
    >>> for n in range(50):
    ...     patience.arrived(n * 0.0005)
    >>> round(patience.wait_s(flat), 4)
    0.001
    >>> patience.arrived(1000.0)  # and then for long nothing came
    >>> patience.wait_s(flat)
    0.0
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._last = -math.inf
        self._gap_s = math.inf
        self._share = 1.0

    def arrived(self, now: float) -> None:
        """A request came."""
        gap = now - self._last
        self._last = now
        self._gap_s = gap if self._gap_s == math.inf else _FORGET * self._gap_s + (1 - _FORGET) * gap

    def waited(self, paid: bool) -> None:
        """A batch has waited; ``paid`` if a request came meanwhile."""
        self._share = min(self._share * 2, 1.0) if paid else max(self._share / 2, 1 / 16)

    def wait_s(self, curve: CostCurve) -> float:
        """How long the oldest request of a batch that is not full should wait in all; 0 is not at all."""
        one_s, two_s = curve.expect(1) / 1e6, curve.expect(2) / 1e6
        if not (two_s < math.inf and two_s <= 2 * _PAYS * one_s and self._gap_s * _DENSE <= one_s):
            return 0.0
        return min(one_s / 4, self._max_wait_s) * self._share
