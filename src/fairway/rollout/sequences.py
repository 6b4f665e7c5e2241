r"""Confidence sequences: intervals that may be looked at after every request.

A confidence sequence of level ``alpha`` misses the truth *at any time, ever* with probability at most ``alpha``. So a
watcher may look as often as it likes and stop when it likes, which an ordinary interval does not survive.

All are closed forms on one nonnegative martingale. For ``s`` events in ``n`` independent trials of true rate ``p``,

.. math:: M_n(p) = \frac{B(s + 1/2,\; n - s + 1/2)}{B(1/2, 1/2)\; p^s (1 - p)^{n - s}}

is the likelihood ratio of a mixture of all rates to ``p``; it starts at 1 and has mean 1, so by Ville's inequality it ever
reaches ``1 / alpha`` with probability at most ``alpha``. The rates where it has not are the interval. The mixture is
Jeffreys' prior, which costs little for the small rates that matter here.

The trials must be exchangeable given the version: callers routed by a hash, not by what they ask.

References
----------
H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41(5), 1970,
doi:10.1214/aoms/1177696786: mixture martingales and Ville's inequality.

S. R. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Ann. Statist. 49(2), 2021, doi:10.1214/20-AOS1991: the beta-binomial mixture.

S. R. Howard, A. Ramdas, "Sequential estimation of quantiles with applications to A/B testing and best-arm
identification", Bernoulli 28(3), 2022, doi:10.3150/21-BEJ1388: quantiles by way of their ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


def rate_interval(events: int, trials: int, alpha: float) -> Interval:
    """The rates that ``events`` in ``trials`` have not ruled out, at any time so far.

    Parameters
    ----------
    events, trials : int
        With ``0 <= events <= trials``. Accurate up to about 10^10 trials.
    alpha : float
        Bound on the probability that the interval ever misses the true rate; each of its ends errs no oftener.

    Raises
    ------
    ValueError
        If the counts or ``alpha`` make no sense.

    Examples
    --------
    >>> low, high = rate_interval(5, 1000, 0.05)
    >>> round(low, 4), round(high, 4)
    (0.0005, 0.018)
    >>> rate_interval(0, 0, 0.05)
    Interval(low=0.0, high=1.0)
    """
    _check(events, trials, alpha)
    threshold = -math.log(alpha)

    def ruled_out(rate: float) -> bool:
        return log_evidence(events, trials, rate) >= threshold

    estimate = events / trials if trials else 0.5
    low = _edge(0.0, estimate, ruled_out) if events else 0.0
    high = _edge(1.0, estimate, ruled_out) if events < trials else 1.0
    return Interval(low, high)


def plausible_counts(trials: int, rate: float, alpha: float) -> tuple[int, int]:
    """The smallest and largest count of events in ``trials`` that does not rule out ``rate``: the other side of the test.

    Examples
    --------
    >>> plausible_counts(1000, 0.5, 0.05)
    (443, 557)
    """
    _check(0, trials, alpha)
    threshold = -math.log(alpha)
    likely = min(trials, int(rate * (trials + 1)))

    def ruled_out(count: int) -> bool:
        return log_evidence(count, trials, rate) >= threshold

    return _count_edge(0, likely, ruled_out), _count_edge(trials, likely, ruled_out)


def quantile_interval(
    value_at: Callable[[float], float], n: int, rank: float, alpha: float, *, rank_error: float = 0.0
) -> Interval:
    """Where the ``rank``-quantile of a distribution of values of at least 0 is, at any time so far.

    The number of values at or below the true quantile is a count of independent trials of rate ``rank``, whatever the
    distribution; with ties it can only be larger, and that of values below it only smaller, which errs on the safe side.

    Parameters
    ----------
    value_at : callable
        The smallest value at or below which a given share of the ``n`` values is: a sketch's quantile function.
    n : int
        Values seen.
    rank : float
        Between 0 and 1; 0.99 for the 99th percentile.
    alpha : float
        Bound on the probability that the interval ever misses the true quantile.
    rank_error : float
        How far the shares that ``value_at`` works with can be off; the interval is widened by as much.

    Returns
    -------
    Interval
        From 0 where too few values were seen to bound it from below, to infinity where too few to bound it from above.

    Examples
    --------
    >>> values = sorted((i * 37) % 1000 for i in range(1000))
    >>> quantile_interval(lambda share: values[math.ceil(share * 1000) - 1], 1000, 0.5, 0.05)
    Interval(low=442.0, high=557.0)
    """
    fewest, most = plausible_counts(n, rank, alpha)
    below = (fewest - 0.5) / n - rank_error if n else 0.0  # half a rank: rounding cannot reach the next value
    above = (most + 0.5) / n + rank_error if n else 1.0
    return Interval(float(value_at(below)) if below > 0 else 0.0, float(value_at(above)) if above < 1 else math.inf)


def difference_interval(ours: Interval, theirs: Interval) -> Interval:
    """Ours minus theirs. With each at ``alpha / 2``, the difference is ever missed with probability at most ``alpha``.

    Examples
    --------
    >>> difference_interval(Interval(3.0, 4.0), Interval(1.0, 1.5))
    Interval(low=1.5, high=3.0)
    """
    return Interval(ours.low - theirs.high, ours.high - theirs.low)


def log_evidence(events: int, trials: int, rate: float) -> float:
    """Natural logarithm of the martingale: the evidence against ``rate``, infinite where it is impossible.

    Examples
    --------
    >>> log_evidence(0, 0, 0.3)
    0.0
    >>> log_evidence(1, 1, 0.0)
    inf
    """
    others = trials - events
    if (events and rate <= 0) or (others and rate >= 1):
        return math.inf
    mixture = math.lgamma(events + 0.5) + math.lgamma(others + 0.5) - math.lgamma(trials + 1) - _LOG_PI
    return mixture - (events * math.log(rate) if events else 0.0) - (others * math.log1p(-rate) if others else 0.0)


_LOG_PI = 2 * math.lgamma(0.5)  # so that no data is no evidence, exactly


def _edge(outside: float, inside: float, ruled_out: Callable[[float], bool]) -> float:
    """The rate nearest to ``outside`` that is not ruled out, to the last bit on the safe side."""
    for _ in range(80):
        middle = (outside + inside) / 2
        if middle in (outside, inside):
            break
        outside, inside = (middle, inside) if ruled_out(middle) else (outside, middle)
    return outside


def _count_edge(outside: int, inside: int, ruled_out: Callable[[int], bool]) -> int:
    """The count nearest to ``outside`` that is not ruled out; ``inside`` is not."""
    if not ruled_out(outside):
        return outside
    while abs(outside - inside) > 1:
        middle = (outside + inside) // 2
        outside, inside = (middle, inside) if ruled_out(middle) else (outside, middle)
    return inside


def _check(events: int, trials: int, alpha: float) -> None:
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events in {trials} trials")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; it lies between 0 and 1")
