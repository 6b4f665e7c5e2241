"""Confidence intervals: of a proportion, of a difference between matched proportions, and of bootstrap draws."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EXACT = "exact (Clopper-Pearson)"
MATCHED = "matched pairs (Agresti-Min)"


def proportion_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a proportion: covers at least as often as ``confidence`` says, for every true value.

    References
    ----------
    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26(4), 1934.

    Examples
    --------
    >>> [round(end, 4) for end in proportion_interval(450, 450, 0.95)]
    [0.9918, 1.0]
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


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
        narrowness on few rows. ``None`` where the draws are calibrated without it.

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
