"""Metrics of tallied rows that are no function of sums: they depend on an order, and know the influence of each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fairway.evaluation.tallied import Influence, Scale

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask
    from fairway.evaluation.tallied import Tallied


@dataclass(frozen=True)
class AveragePrecision:
    """The mean over labels of the average precision: scikit-learn's, over the labels that occur.

    Attributes
    ----------
    truth : bool array of shape (units, labels)
    scores : float array of shape (units, labels)
    """

    truth: Mask
    scores: Floats
    low: float = 0.0
    high: float = 1.0
    scale: Scale = Scale.LOGIT
    undefined: str = "no row has any label, so nothing can be ranked"
    counted: bool = False

    def value(self, rows: Tallied) -> float:  # noqa: ARG002
        """See :class:`~fairway.evaluation.tallied.Form`."""
        found = [average_precision(self.truth[:, one], self.scores[:, one])[0] for one in self._present()]
        return float(np.mean(found)) if found else np.nan

    def influence(self, rows: Tallied, pseudo: float = 0.0) -> Influence:
        """See :class:`~fairway.evaluation.tallied.Form`. A pseudo-unit moves the value as far as a unit at either end of the
        range would.
        """
        parts = [average_precision(self.truth[:, one], self.scores[:, one]) for one in self._present()]
        value = float(np.mean([area for area, _ in parts]))
        slopes = np.mean([influence for _, influence in parts], axis=0)
        weight = pseudo / (rows.units + 2 * pseudo)
        unseen = np.array([1 - value, -value])
        return Influence(value + weight * float(unseen.sum()), slopes, unseen)

    def draw(self, rows: Tallied, weights: Floats) -> Floats:
        """See :class:`~fairway.evaluation.tallied.Form`: by the influence."""
        found = self.influence(rows)
        moved: Floats = found.value + weights @ found.slopes / weights.sum(axis=1)
        return moved

    def select(self, chosen: Classes) -> AveragePrecision:
        """See :class:`~fairway.evaluation.tallied.Form`."""
        return AveragePrecision(self.truth[chosen], self.scores[chosen])

    def _present(self) -> list[int]:
        return np.flatnonzero(self.truth.any(axis=0)).tolist()


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of truth and answer, or (``ranks``) Spearman's: of their ranks, ties sharing the mean rank.

    References
    ----------
    C. Croux, C. Dehon, "Influence functions of the Spearman and Kendall correlation measures", Statistical Methods &
    Applications 19(4), 2010, for the influence.
    """

    truth: Floats
    predicted: Floats
    ranks: bool = False
    low: float = -1.0
    high: float = 1.0
    scale: Scale = Scale.FISHER
    undefined: str = "fewer than three rows, or one side is constant: nothing correlates"
    counted: bool = False

    def value(self, rows: Tallied) -> float:
        """See :class:`~fairway.evaluation.tallied.Form`."""
        return self.influence(rows).value

    def influence(self, rows: Tallied, pseudo: float = 0.0) -> Influence:  # noqa: ARG002
        """See :class:`~fairway.evaluation.tallied.Form`."""
        x, y = (shares(each) if self.ranks else each - each.mean() for each in (self.truth, self.predicted))
        spreads = (float((x**2).mean()), float((y**2).mean())) if len(x) > 2 else (0.0, 0.0)
        if min(_relative(spreads[0], self.truth), _relative(spreads[1], self.predicted)) < _CONSTANT:
            return Influence(np.nan, np.zeros(len(x)))
        together, of_x, of_y = x * y, x**2, y**2
        if self.ranks:  # a row also moves the ranks of all above it
            together = together + _above(self.truth, y) + _above(self.predicted, x)
            of_x, of_y = of_x + 2 * _above(self.truth, x), of_y + 2 * _above(self.predicted, y)
        scale = float(np.sqrt(spreads[0] * spreads[1]))
        value = float(np.clip((x * y).mean() / scale, -1.0, 1.0))
        slopes = together / scale - value / 2 * (of_x / spreads[0] + of_y / spreads[1])
        return Influence(value, slopes - slopes.mean())

    def draw(self, rows: Tallied, weights: Floats) -> Floats:
        """See :class:`~fairway.evaluation.tallied.Form`: by the influence."""
        found = self.influence(rows)
        moved: Floats = found.value + weights @ found.slopes / weights.sum(axis=1)
        return moved

    def select(self, chosen: Classes) -> Correlation:
        """See :class:`~fairway.evaluation.tallied.Form`."""
        return Correlation(self.truth[chosen], self.predicted[chosen], self.ranks)


_CONSTANT = 1e-24


def _relative(variance: float, values: Floats) -> float:
    return variance / max(float((values**2).max(initial=0.0)), np.finfo(float).tiny)


def shares(values: Floats) -> Floats:
    """The share of values below each, ties counting half, less 1/2: ranks on a scale from -1/2 to 1/2."""
    from scipy.stats import rankdata

    shares: Floats = (rankdata(values) - 0.5) / len(values) - 0.5
    return shares


def _above(values: Floats, what: Floats) -> Floats:
    """For each row the mean over all rows of ``what`` where ``values`` are above its own, ties counting half."""
    _, place = np.unique(values, return_inverse=True)
    sums = np.bincount(place, weights=what)
    above = sums.sum() - np.cumsum(sums) + sums / 2
    found: Floats = above[place] / len(values)
    return found


def average_precision(positive: Mask, scores: Floats) -> tuple[float, Floats]:
    """Scikit-learn's average precision of one label, and how a share of weight moved to each row would change it.

    Parameters
    ----------
    positive : bool array of shape (rows,)
        At least one is true.
    scores : float array of shape (rows,)
        Rows of equal score come in together.
    """
    levels, place = np.unique(-scores, return_inverse=True)
    hits = np.bincount(place, weights=positive, minlength=len(levels))
    found, taken = np.cumsum(hits), np.cumsum(np.bincount(place, minlength=len(levels)))
    positives, precision = found[-1], found / taken
    area = float((hits * precision).sum() / positives)
    # weight at one level counts in the precision of this level and of all after it
    later = np.cumsum((hits / taken)[::-1])[::-1]
    diluted = np.cumsum((hits * found / taken**2)[::-1])[::-1]
    slopes = np.where(positive, precision[place] - area + later[place], 0.0) - diluted[place]
    influence: Floats = slopes * len(scores) / positives
    return area, influence - influence.mean()
