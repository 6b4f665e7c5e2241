"""The area under the ROC curve: of any weights, what each row adds to it, and its linear form for many rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairway.core.mapping import IN_ORDER, THREADS

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Classified, Floats, Mask

_WORTH_THREADS = 100_000
"""Rows times classes."""


class Ranking(NamedTuple):
    """One class's rows in the order of its score: enough to compute its AUC for any weights."""

    order: Classes
    positive: Classes
    """Where in the order the rows of this class are."""
    start: Classes
    stop: Classes
    """For each of them, the range in the order of rows with the same score."""


def rank(scores: Floats, positive: Mask) -> Ranking:
    """Order the rows of one class against the rest. ``positive`` is a mask."""
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    where = np.flatnonzero(positive[order])
    start = np.searchsorted(sorted_scores, sorted_scores[where], side="left")
    stop = np.searchsorted(sorted_scores, sorted_scores[where], side="right")
    return Ranking(order, where, start, stop)


def auc(weights: Floats, ranking: Ranking) -> Floats:
    """Area under the ROC curve of shape (sets,): how often a row of the class scores above another, ties counting half."""
    ordered = weights[:, ranking.order]
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(ordered, axis=1)], axis=1)
    chosen = ordered[:, ranking.positive]
    wins = (chosen * (below[:, ranking.start] + below[:, ranking.stop])).sum(axis=1) / 2
    positives = chosen.sum(axis=1)
    among_themselves = positives**2 / 2
    area: Floats = (wins - among_themselves) / (positives * (below[:, -1] - positives))
    return area


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


@dataclass(frozen=True)
class Areas:
    """The AUC of each class against the rest, and what each row adds to their mean.

    Attributes
    ----------
    classes : tuple of int
        Those whose AUC is defined.
    areas : float array of shape (classes,)
    own : float array of shape (rows,)
        How far each row's placement in its own class is above that class's area; 0 where its class has none.
    others : float array of shape (rows,)
        The same among the rest of each other class, summed over these and divided by the rows of the rest.
    against_most : float array of shape (rows,)
        The term of the class that most rows are of, which ``others`` then leaves out.
    most : int or None
        That class, if there is one with more than half of the rows.
    influence : float array of shape (rows,)
        By how much a share of weight moved to each row changes the mean, scaled so that its mean square over the rows is
        DeLong's variance (of two classes).
    """

    classes: tuple[int, ...]
    areas: Floats
    own: Floats
    others: Floats
    against_most: Floats
    most: int | None
    influence: Floats


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
    most = next((c for c in ranked if 2 * counts[c] > total), None)
    own, others, against_most, influence = (np.zeros(total) for _ in range(4))
    found = []
    mapper = THREADS if total * len(ranked) > _WORTH_THREADS else IN_ORDER
    parts = mapper.map(lambda c: placements(np.ascontiguousarray(probabilities[:, c]), truth == c), ranked)
    for c, placed in zip(ranked, parts, strict=True):
        positive = truth == c
        found.append(float(placed[positive].mean()))
        won = placed - found[-1]
        own[positive] = won[positive]
        rest = total - counts[c]
        for side, count in ((positive, counts[c]), (~positive, rest)):
            unbiased = np.sqrt(count / max(count - 1, 1) * (total - 1) / total)
            influence[side] += won[side] * (total / count * unbiased / len(ranked))
        if c == most:
            against_most = np.where(positive, 0.0, won)
        else:
            others += np.where(positive, 0.0, won / rest)
    return Areas(tuple(ranked), np.array(found), own, others, against_most, most, influence)
