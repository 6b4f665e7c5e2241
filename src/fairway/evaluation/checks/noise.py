"""Which labels may be wrong, and which classes are rare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fairway.evaluation.checks.base import Check, Severity, percent
from fairway.evaluation.estimates import Estimate
from fairway.evaluation.predictions import Classified

if TYPE_CHECKING:
    from fairway.evaluation.checks.base import Looked
    from fairway.evaluation.predictions import Classes, Floats

_SHOWN = 10
_ALPHA = 0.01
_RARE = 30
_DOMINANT = 0.9


def label_checks(looked: Looked) -> Iterator[Check]:
    """Suspect labels and rare classes, of a classifier."""
    rows = looked.subject.rows
    if not isinstance(rows, Classified):
        return
    yield _imbalance(rows)
    if rows.probabilities is None:
        yield Check("suspect labels", Severity.SKIPPED, "Not looked for: the model gives no probabilities.")
        return
    yield _suspects(rows)


def suspect_labels(probabilities: Floats, truth: Classes) -> Classes:
    """The rows whose label the model contradicts with confidence, the least plausible label first.

    Confident learning: class ``j`` is claimed for a row if its probability reaches the mean that ``j`` gets on rows labeled so.
    A row is suspect if the likeliest claimed class is not its label. The probabilities must come from a model that was not
    trained on these rows, as is so for test data.

    References
    ----------
    C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021, sec. 3.1.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.95, 0.05], [0.1, 0.9], [0.2, 0.8], [0.97, 0.03]])
    >>> suspect_labels(p, np.array([0, 0, 1, 1, 1])).tolist()
    [4]
    """
    size = probabilities.shape[1]
    counts = np.bincount(truth, minlength=size)
    own = probabilities[np.arange(len(truth)), truth]
    sums = np.bincount(truth, weights=own, minlength=size)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    claimed = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = claimed.argmax(axis=1)
    contradicted = (claimed.max(axis=1) >= 0) & (best != truth) & (probabilities[np.arange(len(truth)), best] > own)
    places = np.flatnonzero(contradicted)
    return places[np.argsort(own[places], kind="stable")]


def _suspects(rows: Classified) -> Check:
    from scipy.stats import binom

    assert rows.probabilities is not None
    found = suspect_labels(rows.probabilities, rows.truth)
    if not len(found):
        return Check("suspect labels", Severity.FINE, "The model contradicts no label with confidence.")
    # Of as many rows with so confident an answer, how many would a calibrated model get wrong? As many as it says.
    certain = rows.probabilities[np.arange(len(rows)), rows.predicted]
    least = float(certain[found].min())
    confident = certain >= least
    expected = float((1 - certain[confident]).mean())
    wrong = int((confident & (rows.predicted != rows.truth)).sum())
    p_value = float(binom.sf(wrong - 1, int(confident.sum()), max(expected, 1e-12)))
    more = p_value <= _ALPHA
    said = f"{len(found):,} labels are contradicted with confidence"
    return Check(
        "suspect labels",
        Severity.WARNING if more else Severity.NOTE,
        f"{said}, more than the model's certainty explains."
        if more
        else f"{said}, no more than the model's certainty explains.",
        "Look at these rows: labels are wrong, or the model is too certain (see calibration)."
        if more
        else "They are the first to look at.",
        rows=tuple(found[:_SHOWN].tolist()),
        value=Estimate(len(found) / len(rows)),
        p_value=p_value,
    )


def _imbalance(rows: Classified) -> Check:
    counts = np.bincount(rows.truth, minlength=len(rows.labels))
    rare = [rows.labels[place] for place in np.argsort(counts, kind="stable") if counts[place] < _RARE]
    most = int(counts.argmax())
    share = counts[most] / len(rows)
    if rare:
        least = int(counts.min())
        return Check(
            "class balance",
            Severity.WARNING,
            f"{len(rare)} classes have fewer than {_RARE} rows; the rarest, {rare[0]}, has {least}.",
            "Means over classes rest on these few rows: their intervals are wide. Collect more of them.",
            columns=tuple(rare[:_SHOWN]),
        )
    if share > _DOMINANT:
        return Check(
            "class balance",
            Severity.NOTE,
            f"{percent(share)} of the rows are {rows.labels[most]}: to say so always is as accurate as that.",
            "Judge by balanced_accuracy_score, average precision or costs rather than by accuracy.",
        )
    return Check(
        "class balance", Severity.FINE, f"Every class has {_RARE} rows or more; the most frequent has {percent(share)}."
    )
