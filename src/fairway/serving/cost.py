"""What one engine call costs, learned from every call."""

from __future__ import annotations

import math

from fairway.core.manifest import Cost

_FORGET = 0.99
_OUTLIER = 4.0
BLOCKING_US = 20_000.0
"""What no caller beside it should wait for: a call this long, by its thread's own time, was no hiccup of the machine."""
_SURE = 30


class CostCurve:
    """Time of one call on ``n`` rows, ``base + row * n``, by least squares that slowly forgets.

    A call that took far longer than expected (the process was preempted, say) counts as several times the expectation
    only, so one outlier cannot move the curve far, yet a lasting change does within some dozen calls.

    Parameters
    ----------
    surely_us : float, optional
        Calls above are counted in full. For curves that learn a thread's own time, which no other process can lengthen:
        of a model that takes a microsecond for most inputs and a second for some, one such call says enough.

    Examples
    --------
    >>> curve = CostCurve()
    >>> curve.expect(8)
    inf
    >>> for rows in (1, 2, 8, 64) * 10:
    ...     curve.learn(rows, 10 + 2 * rows)
    >>> round(curve.expect(16))
    42
    """

    def __init__(self, surely_us: float = math.inf) -> None:
        self._surely_us = surely_us
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self._base = math.inf
        self._row = 0.0

    def learn(self, rows: int, took_us: float) -> None:
        """Take note of one call of ``rows`` rows that took ``took_us`` microseconds."""
        expected = self.expect(rows)
        if expected < math.inf and took_us < self._surely_us:
            took_us = min(took_us, _OUTLIER * max(expected, 1.0))
        self._weight = self._weight * _FORGET + 1
        self._n = self._n * _FORGET + rows
        self._nn = self._nn * _FORGET + rows * rows
        self._t = self._t * _FORGET + took_us
        self._nt = self._nt * _FORGET + rows * took_us
        self._fit()

    def expect(self, rows: int) -> float:
        """Expected microseconds for ``rows`` rows; infinite while nothing is known."""
        return self._base + self._row * rows

    @property
    def sure(self) -> bool:
        """Whether some dozen calls are behind the expectation."""
        return self._weight > _SURE

    @property
    def cost(self) -> Cost | None:
        """The curve as a bundle's manifest records it, ``None`` while nothing is known."""
        return None if self._base == math.inf else Cost(self._base, self._row)

    def _fit(self) -> None:
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        slope = (self._nt / self._weight - mean_n * mean_t) / variance if variance > 1e-9 else 0.0
        # Neither part can be negative: where noise says so, all of the time goes to the other.
        self._row = min(max(slope, 0.0), mean_t / mean_n)
        self._base = mean_t - self._row * mean_n
