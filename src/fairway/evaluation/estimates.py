"""Estimates with an interval, for what is no metric of a gate: means, shares, and any smooth function of sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.evaluation.influence import spread
from fairway.evaluation.intervals import grouped_proportion_interval, proportion_interval, skewed_interval
from fairway.evaluation.roc import placements

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask

BLOCKS = 50
"""Of the jackknife: enough for a t distribution with 49 degrees of freedom."""
_CHUNK_ELEMENTS = 2_000_000


class Estimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A number with its interval; ``low`` and ``high`` are ``None`` where the data bound it on no side."""

    value: float
    low: float | None = None
    high: float | None = None

    def above(self, bound: float) -> bool:
        """Whether the whole interval is above ``bound``."""
        return self.low is not None and self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval is below ``bound``."""
        return self.high is not None and self.high < bound


def mean_estimate(values: Floats, groups: Classes | None, confidence: float) -> Estimate:
    """The mean of one value per row: a t interval over rows or their groups, corrected for skewness."""
    value = float(values.mean())
    ends = skewed_interval(value, spread(values - value, groups), confidence)
    return Estimate(value) if ends is None else Estimate(value, *ends)


def share_estimate(hits: Mask, groups: Classes | None, confidence: float) -> Estimate:
    """How many of the rows are hit: the interval of a proportion, or that of groups. Without rows, 0 and no interval."""
    rows, count = len(hits), int(hits.sum())
    if rows == 0:
        return Estimate(0.0)
    if groups is None:
        return Estimate(count / rows, *proportion_interval(count, rows, confidence))
    share = count / rows
    ends = grouped_proportion_interval(share, rows, spread(np.asarray(hits - share, np.float64), groups), confidence)
    return Estimate(share) if ends is None else Estimate(share, *ends)


def area_terms(scores: Floats, positive: Mask) -> tuple[float, Floats]:
    """The area under the ROC curve, and by how much a share of weight moved to each row would change it (DeLong)."""
    won = placements(scores, positive)
    area, inside = float(won[positive].mean()), int(positive.sum())
    slopes: Floats = (won - area) * np.where(positive, len(won) / inside, len(won) / (len(won) - inside))
    return area, slopes


def units_of(rows: int, groups: Classes | None) -> Classes:
    """Which independent unit each row belongs to: itself, or its group."""
    return np.arange(rows) if groups is None else groups


def split_units(rows: int, groups: Classes | None, parts: int, seed: int) -> Classes:
    """Which of ``parts`` random parts of about equal size each row falls into; rows of one group stay together."""
    units = units_of(rows, groups)
    count = int(units.max(initial=-1)) + 1
    return (np.random.default_rng([seed, 5]).permutation(count) % parts)[units]


def jackknife(sums: Floats, function: Callable[[Floats], Floats], confidence: float) -> list[Estimate]:
    """Smooth functions of sums over rows, with t intervals from leaving out one block of rows at a time.

    Parameters
    ----------
    sums : float array of shape (blocks, ...)
        The sums within each of some random blocks of rows (:func:`split_units`), at least two.
    function : callable
        From the sums over rows, of shape (...), to the values, of shape (values,).

    References
    ----------
    P. S. Kott, "The delete-a-group jackknife", Journal of Official Statistics 17(4), 2001.

    Examples
    --------
    >>> sums = np.array([[3.0, 2], [1.0, 2], [2.0, 2]])
    >>> [found] = jackknife(sums, lambda total: np.array([total[0] / total[1]]), 0.95)
    >>> round(found.value, 2), round(found.low, 2), round(found.high, 2)
    (1.0, -0.24, 2.24)
    """
    from scipy.stats import t

    total = sums.sum(axis=0)
    values = np.asarray(function(total), np.float64)
    blocks = len(sums)
    left = np.stack([function(total - one) for one in sums])
    error = np.sqrt((blocks - 1) / blocks * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    reach = float(t.ppf((1 + confidence) / 2, blocks - 1)) * error
    return [Estimate(float(v), float(v - r), float(v + r)) for v, r in zip(values, reach, strict=True)]


def block_count(rows: int, groups: Classes | None) -> int:
    """How many blocks these rows can be cut into; below 5 nothing is bounded."""
    return min(BLOCKS, rows if groups is None else int(groups.max(initial=-1)) + 1)


def cell_draws(cells: Classes, size: int, resamples: int, seed: int, groups: Classes | None = None) -> Floats:
    """Bayesian bootstrap of how much weight each cell holds; shape (resamples, size).

    Rows (or groups of rows) get exponential weights; those of one cell are drawn together, as one Gamma variable, so the cost
    does not depend on the number of rows.

    References
    ----------
    D. B. Rubin, "The Bayesian bootstrap", Annals of Statistics 9(1), 1981.
    """
    rng = np.random.default_rng([seed, 6])
    if groups is None:
        counts = np.bincount(cells, minlength=size)
        return rng.standard_gamma(counts, size=(resamples, size))
    from scipy.sparse import csr_array

    units = int(groups.max()) + 1
    held = csr_array((np.ones(len(cells)), (groups, cells)), shape=(units, size))
    drawn = [np.asarray((held.T @ rng.standard_exponential((part, units)).T).T) for part in _chunks(resamples, units)]
    return np.concatenate(drawn)


def quantile_estimates(values: Floats, draws: Floats, confidence: float) -> list[Estimate]:
    """Values with the percentile intervals of their draws, of shape (resamples, values); NaN draws are left out."""
    tail = (1 - confidence) / 2
    known = np.asarray(np.isfinite(draws).any(axis=0))
    filled = np.where(known, draws, 0.0)
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return [
        Estimate(float(v), float(min(a, v)), float(max(b, v))) if k else Estimate(float(v) if math.isfinite(v) else 0.0)
        for v, a, b, k in zip(values, low, high, known, strict=True)
    ]


def _chunks(resamples: int, columns: int) -> Iterator[int]:
    step = max(1, _CHUNK_ELEMENTS // max(columns, 1))
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
