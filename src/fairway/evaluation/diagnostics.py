"""What a report shows beyond metrics: which classes are confused, how calibrated, how errors are distributed."""

from __future__ import annotations

import msgspec
import numpy as np

from fairway.evaluation.intervals import proportion_interval
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.weighted import cells

MAX_MATRIX = 50
"""Classes up to which the whole confusion matrix is kept."""
_PAIRS = 20
_BINS = 10


class Confused(msgspec.Struct, frozen=True):
    """How many rows of class ``label`` were taken for class ``predicted``."""

    label: str
    predicted: str
    rows: int


class Confusion(msgspec.Struct, frozen=True):
    """Where a classifier errs.

    Attributes
    ----------
    labels : tuple of str
    matrix : tuple of tuple of int
        Rows are true classes, columns predicted ones, in the order of ``labels``. Empty beyond 50 classes.
    pairs : tuple of Confused
        The most frequent errors, most frequent first, at most 20.
    """

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    pairs: tuple[Confused, ...]


class CalibrationBin(msgspec.Struct, frozen=True):
    """Rows whose predicted class got a probability in ``[start, stop)`` (the last bin includes 1).

    ``confidence`` is their mean probability, ``accuracy`` the share that was right, with its interval.
    """

    start: float
    stop: float
    rows: int
    confidence: float
    accuracy: float
    low: float
    high: float


class Residuals(msgspec.Struct, frozen=True):
    """How a regressor's errors (prediction minus label, in the label's unit) are distributed.

    ``quantiles`` maps ``"0.05"`` and so on to errors. ``edges`` and ``counts`` are a histogram, whose first and last bars
    hold the outermost 1 % each.
    """

    mean: float
    deviation: float
    quantiles: dict[str, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def confusion(rows: Classified) -> Confusion:
    """The confusion matrix and its largest errors."""
    pairs, _, counts = cells([rows.truth, rows.predicted])
    wrong = np.flatnonzero(pairs[:, 0] != pairs[:, 1])
    worst = wrong[np.argsort(-counts[wrong], kind="stable")][:_PAIRS]
    size = len(rows.labels)
    matrix = np.zeros((size, size) if size <= MAX_MATRIX else (0, 0), dtype=np.int64)
    if size <= MAX_MATRIX:
        matrix[pairs[:, 0], pairs[:, 1]] = counts
    return Confusion(
        rows.labels,
        tuple(tuple(line) for line in matrix.tolist()),
        tuple(Confused(rows.labels[pairs[i, 0]], rows.labels[pairs[i, 1]], int(counts[i])) for i in worst),
    )


def calibration(rows: Classified, confidence: float) -> tuple[CalibrationBin, ...]:
    """Ten bins of equal width over the predicted class's probability; empty ones are left out."""
    if rows.probabilities is None:
        return ()
    certain = np.minimum(rows.probabilities[np.arange(len(rows)), rows.predicted], 1.0)
    right = rows.predicted == rows.truth
    place = np.minimum((certain * _BINS).astype(int), _BINS - 1)
    found = []
    for bin_ in np.unique(place).tolist():
        inside = place == bin_
        count, hits = int(inside.sum()), int(right[inside].sum())
        low, high = proportion_interval(hits, count, confidence)
        mean = float(certain[inside].mean())
        found.append(CalibrationBin(bin_ / _BINS, (bin_ + 1) / _BINS, count, mean, hits / count, low, high))
    return tuple(found)


def calibration_error(bins: tuple[CalibrationBin, ...]) -> float:
    """Expected calibration error: mean over rows of the bins' gap between confidence and accuracy.

    References
    ----------
    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
    AAAI 2015.
    """
    total = sum(bin_.rows for bin_ in bins)
    return sum(bin_.rows * abs(bin_.confidence - bin_.accuracy) for bin_ in bins) / total if total else 0.0


def residuals(rows: Regressed) -> Residuals:
    """The distribution of prediction minus label."""
    errors = rows.predicted - rows.truth
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    quantiles = [float(q) for q in np.quantile(errors, levels)]
    low, high = quantiles[0], quantiles[-1]
    if not high > low + 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(errors, low, high), bins=30, range=(low, high))
    return Residuals(
        mean=float(errors.mean()),
        deviation=float(errors.std(ddof=1)) if len(errors) > 1 else 0.0,
        quantiles={str(level): quantile for level, quantile in zip(levels, quantiles, strict=True)},
        edges=tuple(map(float, edges)),
        counts=tuple(map(int, counts)),
    )
