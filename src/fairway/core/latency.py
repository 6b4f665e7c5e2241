"""How long requests took, as a whole distribution: small enough to travel in a report, exact enough to plot."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

BINS = 60
"""At most; fewer where all requests took about as long."""

_RATIO = 1.04
"""No bin is narrower than 4 % of its start."""


class LatencyProfile(msgspec.Struct, frozen=True):
    """The latencies at one load, as counts in bins of equal ratio.

    Attributes
    ----------
    at_rps : float or None
        The offered load in requests per second; ``None``: callers that each wait for their answer.
    edges_ms : tuple of float
        The bins' ends in milliseconds, one more than there are counts; empty if nothing was answered.
    counts : tuple of int
        Answered requests per bin.
    failures : int
        Requests without an answer: in no bin, slower than all.
    """

    at_rps: float | None
    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]
    failures: int = 0

    @classmethod
    def of(cls, latencies_ms: ArrayLike, *, at_rps: float | None = None, failures: int = 0) -> LatencyProfile:
        """Count latencies in milliseconds, an array of shape ``(requests,)``.

        Examples
        --------
        >>> profile = LatencyProfile.of([1.0, 2.0, 4.0, 8.0], failures=1)
        >>> profile.edges_ms[0], profile.edges_ms[-1], sum(profile.counts), profile.requests
        (1.0, 8.0, 4, 5)
        """
        values = np.maximum(np.asarray(latencies_ms, np.float64), 1e-6)
        if not values.size:
            return cls(at_rps, (), (), failures)
        low, high = float(values.min()), float(values.max())
        bins = min(BINS, max(1, math.ceil(math.log(high / low) / math.log(_RATIO))))
        edges = np.geomspace(low, max(high, low * _RATIO), bins + 1)
        edges[0], edges[-1] = low, max(high, low * _RATIO)
        counts, _ = np.histogram(values, edges)
        return cls(at_rps, tuple(edges.tolist()), tuple(counts.tolist()), failures)

    @property
    def requests(self) -> int:
        """All, answered or not."""
        return sum(self.counts) + self.failures

    def shares(self) -> tuple[float, ...]:
        """Which share of all requests was answered by each of ``edges_ms``: the empirical distribution function."""
        return tuple((np.concatenate([[0], np.cumsum(self.counts)]) / max(1, self.requests)).tolist())
