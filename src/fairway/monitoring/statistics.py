"""The statistics of drift, valid at any sample size: no asymptotics, so no rule about small expected counts."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]


def jensen_shannon(baseline: ArrayLike, current: ArrayLike) -> float:
    """How far one feature's distribution has moved from its baseline.

    Parameters
    ----------
    baseline, current : array-like of shape (n_bins,)
        Counts per bin (unit: rows), same bins in the same order.

    Returns
    -------
    float
        Divergence in bits, between 0 (same distribution) and 1 (no overlap).

    Raises
    ------
    ValueError
        If the shapes differ, a count is negative, or either side has no rows.

    References
    ----------
    J. Lin, "Divergence measures based on the Shannon entropy",
    IEEE Trans. Inf. Theory 37(1), 1991, sec. IV, doi:10.1109/18.61115.

    Examples
    --------
    >>> jensen_shannon([9, 0], [0, 9])
    1.0
    """
    a, b = np.asarray(baseline, np.float64), np.asarray(current, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"baseline has shape {a.shape} and current has {b.shape}; both must be (n_bins,)")
    if (a < 0).any() or (b < 0).any() or not (a.sum() > 0 and b.sum() > 0):
        raise ValueError("counts must not be negative, and each side must hold one or more rows")
    return float(divergences(a, b))


def divergences(baseline: Floats, current: Floats) -> Floats:
    """:func:`jensen_shannon` along the last axis, for many features at once; 0 where a side has no rows."""
    p, q = _shares(baseline), _shares(current)
    mean = (p + q) / 2
    bits: Floats = np.clip((_relative_entropies(p, mean) + _relative_entropies(q, mean)) / 2, 0.0, 1.0)
    return bits


def sampling_floors(baseline: Floats, current: Floats) -> Floats:
    r"""The Jensen-Shannon divergence, in bits, to expect from sampling alone, along the last axis.

    Notes
    -----
    To second order the divergence is :math:`\sum_i (p_i - q_i)^2 / (8 m_i \ln 2)` with :math:`m` the mean of both.
    Under no change each term's expectation is :math:`(1 - m_i)(1/n_p + 1/n_q) / (8 \ln 2)`.

    Examples
    --------
    >>> sampling_floors(np.array([50, 50]), np.array([500, 500])).round(5)
    np.float64(0.00198)
    """
    used = np.count_nonzero(baseline + current, axis=-1)
    with np.errstate(divide="ignore"):
        spread = 1 / baseline.sum(axis=-1) + 1 / current.sum(axis=-1)
    floor: Floats = np.where(np.isfinite(spread), (used - 1) * np.where(np.isfinite(spread), spread, 0), 0.0)
    return floor / (8 * math.log(2))


def exchange_p(current: ArrayLike, current_rows: ArrayLike, baseline: ArrayLike, baseline_rows: ArrayLike) -> Floats:
    """How surprising it is that so many, or so few, current rows have a property, given how many baseline rows have it.

    If both samples come from one distribution then, given the rows that have the property, which sample they are in
    is hypergeometric. Returned is an upper bound of its two-sided tail (Fisher's exact test), tight where the tail is small:
    the hypergeometric is log-concave, so beyond its mode the terms fall at least geometrically.

    Parameters
    ----------
    current, current_rows, baseline, baseline_rows : array-like of int
        Rows with the property and rows in all; they broadcast.

    Returns
    -------
    ndarray
        Two-sided p-values. Never below the exact ones.

    References
    ----------
    R. A. Fisher, "The logic of inductive inference", J. R. Stat. Soc. 98(1), 1935.
    N. L. Johnson, A. W. Kemp, S. Kotz, "Univariate Discrete Distributions", 3rd ed., 2005, sec. 6.2.

    Examples
    --------
    >>> float(exchange_p(5, 100, 50, 1000))
    1.0
    >>> float(exchange_p(60, 100, 50, 1000)) < 1e-12
    True
    """
    k, n, r, m = (np.asarray(value, np.float64) for value in (current, current_rows, baseline, baseline_rows))
    log_mass = _log_choose(n, k) + _log_choose(m, r) - _log_choose(n + m, k + r)
    more = r * (n - k) / ((k + 1) * (m - r + 1))  # P(k + 1) / P(k)
    less = k * (m - r) / ((r + 1) * (n - k + 1))  # P(k - 1) / P(k)
    ratio = np.minimum(more, less)  # at most one is below 1 far from the mode: the tail that points away from it
    with np.errstate(divide="ignore"):
        log_tail = np.where(ratio < 1, log_mass - np.log1p(-np.minimum(ratio, 1 - 1e-15)), 0.0)
    both: Floats = np.minimum(1.0, 2 * np.exp(np.minimum(log_tail, 0.0)))
    return both


def beyond_p(current: ArrayLike, current_rows: ArrayLike, baseline_rows: ArrayLike) -> Floats:
    """How surprising it is that the ``current`` largest of all rows are all among ``current_rows``, none in the baseline.

    Under no change every order of the rows is equally likely, so this is exact without ties and conservative with them.

    Examples
    --------
    >>> float(beyond_p(1, 1, 9).round(3))  # one new row is the largest of ten
    0.1
    """
    k, n, m = (np.asarray(value, np.float64) for value in (current, current_rows, baseline_rows))
    log_p = _log_factorial(n) - _log_factorial(n - k) - _log_factorial(n + m) + _log_factorial(n + m - k)
    tail: Floats = np.exp(np.minimum(log_p, 0.0))
    return tail


def holm(p_values: ArrayLike) -> Floats:
    """P-values adjusted for their number: the chance of one or more false ones among those below ``x`` is at most ``x``.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6(2), 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def alpha_at(look: int, alpha: float) -> float:
    """The part of ``alpha`` that the ``look``-th judgment may spend; all looks together spend ``alpha``, for ever.

    Examples
    --------
    >>> round(sum(alpha_at(look, 0.05) for look in range(1, 100_000)), 6)
    0.05
    """
    return alpha * 6 / (math.pi * look) ** 2


def _shares(counts: Floats) -> Floats:
    shares: Floats = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return shares


def _relative_entropies(p: Floats, q: Floats) -> Floats:
    terms = np.zeros_like(p)
    held = p > 0
    terms[held] = p[held] * np.log2(p[held] / q[held])
    total: Floats = terms.sum(axis=-1)
    return total


def _log_choose(n: Floats, k: Floats) -> Floats:
    return _log_factorial(n) - _log_factorial(k) - _log_factorial(n - k)


_TABLE = np.array([math.lgamma(n + 1) for n in range(256)])


def _log_factorial(n: Any) -> Floats:
    """Natural logarithm of n!, to double precision: a table, then Stirling's series (DLMF 5.11.1)."""
    whole = np.asarray(n, np.float64)
    large = np.maximum(whole, 255.0)
    series = (
        (large + 0.5) * np.log(large) - large + 0.5 * math.log(2 * math.pi) + 1 / (12 * large) - 1 / (360 * large**3)
    )
    logs: Floats = np.where(whole < 256, _TABLE[np.minimum(whole, 255).astype(np.intp)], series)
    return logs
