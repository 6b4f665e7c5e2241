"""The area under the ROC curve, what each row adds to it, and its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairway.core.mapping import IN_ORDER, THREADS
from fairway.evaluation.intervals import logit_interval, proportion_interval

if TYPE_CHECKING:
    from fairway.evaluation.influence import Spread
    from fairway.evaluation.predictions import Classes, Classified, Floats, Mask

_WORTH_THREADS = 100_000
"""Rows times classes."""
_FEWEST = 5
_PSEUDO = 0.25


def placements(scores: Floats, positive: Mask) -> Floats:
    """The share of the other side's rows that each row is on the right side of, ties counting half; shape (rows,).

    Their mean over the rows of the class is its AUC, and so is that over the others.

    References
    ----------
    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated receiver
    operating characteristic curves: a nonparametric approach", Biometrics 44(3), 1988; by the ranks of X. Sun, W. Xu,
    "Fast implementation of DeLong's algorithm", IEEE Signal Processing Letters 21(11), 2014.
    """
    order = np.argsort(scores)
    ordered, inside = scores[order], positive[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))  # of the rows with one score
    equal = np.diff(first, append=len(scores))
    positives = np.add.reduceat(inside, first, dtype=np.intp)
    middle = [np.cumsum(counts) - counts / 2 for counts in (positives, equal - positives)]
    below_positives, below_negatives = (np.repeat(each, equal) for each in middle)
    total = int(positives.sum())
    won = np.empty(len(scores))
    won[order] = np.where(inside, below_negatives / (len(scores) - total), 1 - below_positives / total)
    return won


class Areas(NamedTuple):
    """The AUC of each class against the rest, and what each row adds to their mean.

    Attributes
    ----------
    areas : dict of int to float
        By class, of those whose AUC is defined.
    influence : float array of shape (rows,)
        By how much a share of weight moved to each row changes the mean, scaled so that its mean square over the rows is
        DeLong's variance (of two classes).
    """

    areas: dict[int, float]
    influence: Floats

    @property
    def mean(self) -> float:
        """The metric: the mean of the classes' areas."""
        return float(np.mean(list(self.areas.values())))


def areas(rows: Classified) -> Areas:
    """The areas of ``rows``; computed once."""
    if "areas" not in rows.memo:
        rows.memo["areas"] = _areas(rows)
    found: Areas = rows.memo["areas"]
    return found


def ranked_classes(truth: Classes, classes: int) -> list[int]:
    """The classes whose AUC is defined: with rows inside and outside; of two classes, the second."""
    counts = np.bincount(truth, minlength=classes)
    defined = [c for c in range(classes) if 0 < counts[c] < len(truth)]
    return [c for c in defined if c == 1] if classes == 2 else defined


def _areas(rows: Classified) -> Areas:
    probabilities, truth = rows.probabilities, rows.truth
    assert probabilities is not None
    ranked, total = ranked_classes(truth, len(rows.labels)), len(truth)
    counts = np.bincount(truth, minlength=len(rows.labels))
    influence = np.zeros(total)
    found: dict[int, float] = {}
    mapper = THREADS if total * len(ranked) > _WORTH_THREADS else IN_ORDER
    parts = mapper.map(lambda c: placements(np.ascontiguousarray(probabilities[:, c]), truth == c), ranked)
    for c, placed in zip(ranked, parts, strict=True):
        positive = truth == c
        found[c] = float(placed[positive].mean())
        won = placed - found[c]
        for side, count in ((positive, counts[c]), (~positive, total - counts[c])):
            unbiased = np.sqrt(count / max(count - 1, 1) * (total - 1) / total)
            influence[side] += won[side] * (total / count * unbiased / len(ranked))
    return Areas(found, influence)


def freedom(slopes: Floats, truth: Classes) -> float:
    """Degrees of freedom of the variance that :func:`areas` gives: what a rare class adds to it is known from few rows.

    References
    ----------
    E. Brunner, U. Munzel, "The nonparametric Behrens-Fisher problem: asymptotic theory and a small-sample approximation",
    Biometrical Journal 42(1), 2000 (Satterthwaite's approximation, of placements).
    """
    counts = np.bincount(truth)
    parts = np.bincount(truth, weights=slopes**2)
    shares = (parts**2 / np.maximum(counts - 1, 1)).sum()
    return float(parts.sum() ** 2 / shares) if shares > 0 else float(max(counts[counts > 0].min() - 1, 1))


def worth(rows: Classified) -> float:
    """How many rows the mean area is as uncertain as, if a row's placement is all or nothing: of two classes, one row less
    than the smaller one has, or more.
    """
    counts = np.bincount(rows.truth, minlength=len(rows.labels))
    found = areas(rows).areas
    rest = len(rows) - counts
    return float(len(found) ** 2 / sum(1 / counts[c] + 1 / rest[c] for c in found))


def area_interval(rows: Classified, over: Spread, confidence: float) -> tuple[float, float] | None:
    """The interval of the mean area: a t interval of its logit, by DeLong's variance.

    Parameters
    ----------
    rows : Classified
    over : Spread
        Of the influence, over rows or groups of them.
    confidence : float

    Notes
    -----
    What the data never showed must not be taken for impossible: a quarter of a row (or group) that is placed last, and one that
    is placed first, are added; less where placements vary less than all-or-nothing ones would, for then a row tells more. Where
    no row is out of place, the interval is that of a flawless share.

    References
    ----------
    G. Qin, L. Hotilovac, "Comparison of non-parametric confidence intervals for the area under the ROC curve of a
    continuous-scale diagnostic test", Statistical Methods in Medical Research 17(2), 2008 (the logit).
    """
    value = areas(rows).mean
    units = worth(rows) * over.units / len(rows)
    if over.units < _FEWEST or units < 1:
        return None
    if over.deviation == 0 or not 0 < value < 1:
        found = proportion_interval(int(units), int(units), confidence)
        return found if value > 0 else (1 - found[1], 1 - found[0])
    degrees = float(over.freedom) if rows.groups is not None else freedom(areas(rows).influence, rows.truth)
    mass = _PSEUDO * min(1.0, over.error**2 * units / (value * (1 - value)))
    total = units + 2 * mass
    moved = (units * value + mass) / total
    squares = (units * over.error) ** 2 + mass * ((1 - moved) ** 2 + moved**2)
    low, high = logit_interval(moved, math.sqrt(squares) / total, degrees, confidence)
    # The pseudo-rows pull the interval away from the near end of the range: there it is that without them.
    plain = logit_interval(value, over.error, degrees, confidence)
    return (low, max(high, plain[1])) if value > 0.5 else (min(low, plain[0]), high)
