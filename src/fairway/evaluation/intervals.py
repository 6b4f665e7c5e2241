"""Confidence intervals: of a proportion, of a difference between matched proportions, and of bootstrap draws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fairway.evaluation.influence import Spread

EXACT = "exact (Clopper-Pearson)"
MID_P = "mid-p"
AREA = "DeLong, t on the logit scale"
CLUSTERED = "of groups (Korn-Graubard)"
MATCHED = "matched pairs (Agresti-Min)"
SKEWED = "t, corrected for skewness (Hall)"

_FEWEST = 5
"""Units below which no spread is believed; successes and failures below which a proportion's interval is exact."""


def proportion_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """The interval of a proportion: mid-p, which covers about as often as ``confidence`` says, on either side.

    With fewer than five successes or failures it is the exact one (Clopper and Pearson), which covers at least as often: mid-p
    would miss up to twice as many true values near 0 and 1 on one side as it says.

    References
    ----------
    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26(4), 1934.
    G. Berry, P. Armitage, "Mid-P confidence intervals: a brief review", The Statistician 44(4), 1995.

    Examples
    --------
    >>> [round(end, 4) for end in proportion_interval(450, 450, 0.95)]
    [0.9918, 1.0]
    >>> [round(end, 4) for end in proportion_interval(436, 450, 0.95)]
    [0.9496, 0.9823]
    """
    mid = proportion_method(successes, trials) == MID_P
    tail = (1 - confidence) / 2
    low, high = (_lower_end(hits, trials, tail, mid=mid) for hits in (successes, trials - successes))
    return low, 1 - high


def proportion_method(successes: int, trials: int) -> str:
    """Which interval :func:`proportion_interval` is: exact where hardly any trial, or nearly all, were a success."""
    return MID_P if min(successes, trials - successes) >= _FEWEST else EXACT


def _lower_end(hits: int, trials: int, tail: float, *, mid: bool) -> float:
    """Under which share as many hits, or more, come with the probability ``tail``; ``mid``: those as many count half."""
    from scipy.optimize import brentq
    from scipy.special import betainc, betaincinv

    if hits == 0:
        return 0.0
    exact = float(betaincinv(hits, trials - hits + 1, tail))
    if not mid:
        return exact

    def beyond(share: float) -> float:
        more = (betainc(hits, trials - hits + 1, share), betainc(hits + 1, trials - hits, share))
        return float(sum(more) / 2 - tail)

    return float(brentq(beyond, exact, hits / trials))


def grouped_proportion_interval(
    share: float, rows: int, spread: Spread, confidence: float
) -> tuple[float, float] | None:
    """The interval of a proportion where rows of one group are alike: the exact one of as many rows as they are worth.

    Parameters
    ----------
    share : float
    rows : int
    spread : Spread
        Of the share, over groups.

    References
    ----------
    E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24(2), 1998.
    """
    from scipy.stats import beta, t

    if spread.units < _FEWEST:
        return None
    tail = (1 - confidence) / 2
    worth = share * (1 - share) / spread.error**2 if spread.error > 0 else float(spread.units)
    worth = min(float(rows), worth * float(t.ppf(tail, rows - 1) / t.ppf(tail, spread.freedom)) ** 2)
    hits = share * worth
    low = float(beta.ppf(tail, hits, worth - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, worth - hits)) if share < 1 else 1.0
    return low, high


def skewed_interval(value: float, spread: Spread, confidence: float) -> tuple[float, float] | None:
    """The t interval, moved towards the side on which single units reach far; ``None`` for too few or equal units.

    References
    ----------
    P. Hall, "On the removal of skewness by transformation", Journal of the Royal Statistical Society B 54(1), 1992.
    """
    from scipy.stats import t

    if spread.units < _FEWEST or spread.freedom < 1 or spread.deviation <= 1e-12 * abs(value):
        return None
    reach = float(t.ppf((1 + confidence) / 2, spread.freedom)) / math.sqrt(spread.units)
    skew, bias = spread.skewness, spread.skewness / (6 * spread.units)

    def back(point: float) -> float:
        return 3 / skew * (math.cbrt(1 + skew * (point - bias)) - 1) if abs(skew) > 1e-6 else point

    return value - back(reach) * spread.deviation, value - back(-reach) * spread.deviation


def skewed_p_value(value: float, spread: Spread) -> float:
    """The two-sided p-value of "the true value is 0": 1 less the confidence at which :func:`skewed_interval` reaches 0."""
    from scipy.stats import t

    if spread.units < _FEWEST or spread.freedom < 1 or spread.deviation == 0:
        return 1.0
    point, skew = value / spread.deviation, spread.skewness
    moved = point + skew / 3 * point**2 + skew**2 / 27 * point**3 + skew / (6 * spread.units)
    return float(2 * t.sf(abs(moved) * math.sqrt(spread.units), spread.freedom))


def logit_interval(value: float, error: float, freedom: float, confidence: float) -> tuple[float, float]:
    """The t interval of a share's logit, carried back; ``value`` is inside 0 and 1, and ``error`` its standard error."""
    from scipy.stats import t

    reach = float(t.ppf((1 + confidence) / 2, freedom)) * error / (value * (1 - value))
    middle = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, middle + sign * reach)))) for sign in (-1, 1))
    return low, high


def matched_interval(gained: int, lost: int, pairs: int, confidence: float) -> tuple[float, float]:
    """The interval of a difference between two proportions of the same rows.

    Half an observation is added to each of the four cells, so two models that never differ are still not taken to be
    equal for certain.

    Parameters
    ----------
    gained, lost : int
        Rows that only the candidate, and that only the champion, got right.
    pairs : int
        All rows.

    References
    ----------
    A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine
    24(5), 2005, sec. 2.2, doi:10.1002/sim.1781.

    Examples
    --------
    >>> [round(end, 4) for end in matched_interval(0, 0, 450, 0.95)]
    [-0.0043, 0.0043]
    """
    from scipy.stats import norm

    n = pairs + 2
    b, c = gained + 0.5, lost + 0.5
    center = (b - c) / n
    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, center - half), min(1.0, center + half)


def draws_interval(
    draws: NDArray[np.float64], confidence: float, *, rows: int | None = None
) -> tuple[float, float] | None:
    """The percentile interval of bootstrap draws, or ``None`` where they cannot bound anything.

    Parameters
    ----------
    draws : float array of shape (resamples,)
    confidence : float
    rows : int or None
        If given, the percentiles are moved outwards as a t interval is from a normal one, which repairs the bootstrap's
        narrowness on few rows.

    Returns
    -------
    tuple of float or None
        ``None`` if all draws are equal, or if the percentiles lie beyond the outermost draws: too few rows.

    References
    ----------
    T. C. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69(4), 2015
    (the "expanded percentile interval"), doi:10.1080/00031305.2015.1089789.
    """
    from scipy.stats import norm, t

    tail = (1 - confidence) / 2
    if rows is not None:
        if rows < 3:
            return None
        # weights from a Dirichlet distribution vary by 1 / (rows + 1) where counts vary by 1 / rows
        tail = float(norm.cdf(t.ppf(tail, rows - 1) * math.sqrt((rows + 1) / (rows - 1))))
    spread, scale = float(np.ptp(draws)), float(np.abs(draws).max())
    if spread <= 1e-12 * scale or tail * len(draws) < 1:
        return None
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def draws_p_value(draws: NDArray[np.float64], *, rows: int | None = None) -> float:
    """The two-sided p-value of "the true value is 0", by :func:`draws_interval`; never below 2 / (resamples + 1)."""
    from scipy.stats import norm, t

    if float(np.ptp(draws)) == 0 or (rows is not None and rows < 3):
        return 1.0
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    tail = (beyond + 1) / (len(draws) + 1)
    if rows is not None:
        tail = float(t.cdf(norm.ppf(min(tail, 0.5)) / math.sqrt((rows + 1) / (rows - 1)), rows - 1))
    return min(1.0, 2 * tail)
