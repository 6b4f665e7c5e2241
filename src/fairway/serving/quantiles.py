"""Intervals for quantiles and rates that assume nothing about the distribution. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def quantile_interval(ordered: NDArray[np.float64], q: float, confidence: float) -> tuple[float, float, float]:
    """A quantile and its interval between two order statistics.

    The number of observations below the true quantile is binomial, whatever the distribution; that makes the interval
    exact or wider, for independent observations. Where the sample is too small to have an observation above the quantile
    with enough certainty, the upper end is infinite.

    Parameters
    ----------
    ordered : array of shape (n,)
        Observations of a quantity that is never negative, ascending.
    q : float
        Between 0 and 1, both excluded.
    confidence : float
        Two-sided coverage.

    Returns
    -------
    value, low, high : float

    References
    ----------
    H. A. David, H. N. Nagaraja, "Order Statistics", 3rd ed., Wiley 2003, sec. 7.1.

    Examples
    --------
    >>> quantile_interval(np.arange(1.0, 101.0), 0.5, 0.95)
    (50.0, 40.0, 61.0)
    >>> quantile_interval(np.arange(1.0, 101.0), 0.99, 0.95)[2]
    inf
    """
    n = len(ordered)
    if n == 0:
        return math.nan, 0.0, math.inf
    below = np.cumsum(_binomial(n, q))  # P(B <= k)
    tail = (1 - confidence) / 2
    lower = int(np.searchsorted(below, tail, side="right"))  # P(B <= lower - 1) <= tail
    upper = int(np.searchsorted(below, 1 - tail, side="left")) + 1  # P(B >= upper) <= tail
    low = float(ordered[lower - 1]) if lower >= 1 else 0.0
    high = float(ordered[upper - 1]) if upper <= n else math.inf
    return float(ordered[max(math.ceil(n * q), 1) - 1]), low, high


def rate_interval(hits: int, n: int, confidence: float) -> tuple[float, float, float]:
    """A rate and its exact interval.

    References
    ----------
    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26(4), 1934.

    Examples
    --------
    >>> value, low, high = rate_interval(0, 100, 0.95)
    >>> (value, low, round(high, 4))
    (0.0, 0.0, 0.0362)
    """
    if n == 0:
        return math.nan, 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _root(lambda p: float(_binomial(n, p)[hits:].sum()) - tail)
    high = 1.0 if hits == n else _root(lambda p: tail - float(_binomial(n, p)[: hits + 1].sum()))
    return hits / n, low, high


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """The probabilities of 0 … n."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    exponent = factorials[n] - factorials - factorials[::-1] + k * math.log(p) + (n - k) * math.log1p(-p)
    return np.asarray(np.exp(exponent))


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function of (0, 1) crosses zero, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
