"""How far probabilities are from the shares that come true: bins, the calibration error and its interval, the Brier score."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairway.evaluation.diagnostics import CalibrationBin
from fairway.evaluation.estimates import Estimate, block_count, jackknife, split_units, units_of
from fairway.evaluation.intervals import proportion_interval

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask

BINS = 10
_ROWS_PER_BIN = 15
_NOISE = 4000


class CalibrationError(NamedTuple):
    """The expected calibration error with its interval, and the p-value of "perfectly calibrated in these bins"."""

    error: Estimate
    p_value: float


def width_edges() -> Floats:
    """Inner edges of bins of equal width."""
    return np.linspace(0, 1, BINS + 1)[1:-1]


def mass_edges(scores: Floats) -> Floats:
    """Inner edges of bins that hold about as many rows each; fewer bins where rows are few or scores equal."""
    count = max(2, min(BINS, len(scores) // _ROWS_PER_BIN))
    return np.unique(np.quantile(scores, np.linspace(0, 1, count + 1)[1:-1]))


def bins(scores: Floats, hits: Mask, edges: Floats, confidence: float) -> tuple[CalibrationBin, ...]:
    """The bins that hold rows: mean score, share of hits with its interval (of independent rows)."""
    place = np.searchsorted(edges, scores, side="right")
    ends = [0.0, *edges.tolist(), 1.0]
    found = []
    for number in np.unique(place).tolist():
        inside = place == number
        count, right = int(inside.sum()), int(hits[inside].sum())
        low, high = proportion_interval(right, count, confidence)
        mean = float(scores[inside].mean())
        found.append(CalibrationBin(ends[number], ends[number + 1], count, mean, right / count, low, high))
    return tuple(found)


def calibration_error(
    scores: Floats, hits: Mask, edges: Floats, groups: Classes | None, confidence: float, seed: int
) -> CalibrationError:
    """The expected calibration error over given bins: the mean over rows of their bin's |mean score - share of hits|.

    Parameters
    ----------
    scores : float array of shape (rows,)
        Probabilities.
    hits : bool array of shape (rows,)
        Whether what they were given for came true.
    edges : float array
        The bins' inner edges.
    groups : int array of shape (rows,), or None
    confidence : float
    seed : int
        Of the 4,000 draws of noise.

    Returns
    -------
    CalibrationError

    Notes
    -----
    The gaps of a calibrated model are noise, and their absolute values never cancel, so the plain sum is too large. The
    value is debiased by simulating that noise (Kumar et al.), and is not below 0. The interval follows from two inequalities.
    With ``s`` the true gaps, weighted by the bins' shares, and ``s + e`` the measured ones, the error ``|s|`` is at least
    ``|s + e| - |e|`` (the upper quantile of ``|e|`` gives the lower end) and at most ``|s + e| - sign(s) e`` (a normal quantile
    gives the upper end). So it covers at least as often as it says, up to the normal approximation of ``e``; more often near 0.
    A bin's variance is never taken to be less than that of a calibrated one (consistency bars, Bröcker & Smith): a bin
    without an error is not taken to be perfect. The bins are part of the definition: finer ones may show more.

    References
    ----------
    A. Kumar, P. Liang, T. Ma, "Verified uncertainty calibration", NeurIPS 2019, sec. 5.
    J. Bröcker, L. A. Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting 22(3), 2007.
    """
    from scipy.stats import norm

    place = np.searchsorted(edges, scores, side="right")
    size = len(edges) + 1
    rows = len(scores)
    gaps = scores - hits
    measured = np.bincount(place, weights=gaps, minlength=size) / rows
    covariance = _covariance(gaps, place, size, measured, groups)
    calibrated = np.bincount(place, weights=scores * (1 - scores), minlength=size) / rows**2
    np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), calibrated))
    noise = _normal(covariance, seed)
    plain, sizes = float(np.abs(measured).sum()), np.abs(noise).sum(axis=1)
    bias = float(np.abs(measured + noise).sum(axis=1).mean()) - plain
    tail = (1 - confidence) / 2
    low = plain - float(np.quantile(sizes, 1 - tail))
    signs = np.sign(measured)
    over = float(np.sqrt(max(signs @ covariance @ signs, np.trace(covariance))))
    high = plain + float(norm.ppf(1 - tail)) * over
    value = min(max(0.0, plain - bias), 1.0)
    p_value = (1 + int((sizes >= plain).sum())) / (1 + _NOISE)
    return CalibrationError(Estimate(value, min(max(0.0, low), value), min(max(high, value), 1.0)), p_value)


class Brier(NamedTuple):
    """A Brier score and its parts: ``score`` is about ``miscalibration - resolution + uncertainty``."""

    score: Estimate
    miscalibration: Estimate
    resolution: Estimate
    uncertainty: Estimate


def brier_terms(probabilities: Floats, truth: Classes) -> Floats:
    """What each row adds to the Brier score: squared distance to the truth, over classes; of two classes, over the second."""
    if probabilities.shape[1] == 2:
        terms: Floats = (probabilities[:, 1] - (truth == 1)) ** 2
        return terms
    own = probabilities[np.arange(len(truth)), truth]
    squares: Floats = (probabilities**2).sum(axis=1) - 2 * own + 1
    return squares


def brier(probabilities: Floats, truth: Classes, groups: Classes | None, confidence: float, seed: int) -> Brier | None:
    """The Brier score of rows and its decomposition in bins of equal mass per class, corrected for the bins' noise.

    ``None`` for fewer than five rows or groups. Intervals are jackknifed; a part that is near 0 may have an interval that
    reaches below it, which is cut.

    References
    ----------
    A. H. Murphy, "A new vector partition of the probability score", Journal of Applied Meteorology 12(4), 1973.
    C. A. T. Ferro, T. E. Fricker, "A bias-corrected decomposition of the Brier score", QJRMS 138(668), 2012.
    """
    rows, classes = probabilities.shape
    count = block_count(rows, groups)
    if count < 5:
        return None
    blocks = split_units(rows, groups, count, seed)
    scored = range(1, 2) if classes == 2 else range(classes)
    sums = np.zeros((count, len(scored) * BINS + 1, 3))
    for place, chosen in enumerate(scored):
        own, hit = probabilities[:, chosen], truth == chosen
        cell = blocks * BINS + np.searchsorted(mass_edges(own), own, side="right")
        for kind, weights in enumerate((None, own, hit)):
            filled = np.bincount(cell, weights=weights, minlength=count * BINS).reshape(count, BINS)
            sums[:, place * BINS : (place + 1) * BINS, kind] = filled
    sums[:, -1, 0] = np.bincount(blocks, weights=brier_terms(probabilities, truth), minlength=count)
    found = jackknife(sums, lambda total: _parts(total, len(scored)), confidence)
    score, *parts = (Estimate(max(0.0, e.value), max(0.0, e.low or 0.0), max(0.0, e.high or 0.0)) for e in found)
    return Brier(score, *parts)


def _parts(total: Floats, classes: int) -> Floats:
    """Score, miscalibration, resolution, uncertainty."""
    cells = total[:-1].reshape(classes, BINS, 3)
    n, forecast, hits = cells[..., 0], cells[..., 1], cells[..., 2]
    rows = float(n[0].sum())
    held = np.maximum(n, 1)
    share = hits / held
    base = hits.sum(axis=1) / rows
    noise = (n * share * (1 - share) / np.maximum(n - 1, 1)).sum() / rows
    spread = float((base * (1 - base)).sum())
    miscalibration = (n * (forecast / held - share) ** 2).sum() / rows - noise
    resolution = (n * (share - base[:, None]) ** 2).sum() / rows - noise + spread / (rows - 1)
    return np.array([total[-1, 0] / rows, miscalibration, resolution, spread * rows / (rows - 1)])


def _covariance(gaps: Floats, place: Classes, size: int, measured: Floats, groups: Classes | None) -> Floats:
    """Of the weighted gaps, over rows or over whole groups of them."""
    rows = len(gaps)
    if groups is None:
        squares = np.bincount(place, weights=gaps**2, minlength=size) / rows
        found: Floats = (np.diag(squares) - np.outer(measured, measured)) / max(rows - 1, 1)
        return found
    from scipy.sparse import csr_array

    units = units_of(rows, groups)
    count = int(units.max()) + 1
    sums = csr_array((gaps, (units, place)), shape=(count, size))
    centered = (sums.T @ sums).toarray() - rows**2 / count * np.outer(measured, measured)
    whole: Floats = centered * count / max(count - 1, 1) / rows**2
    return whole


def _normal(covariance: Floats, seed: int) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn: Floats = np.random.default_rng([seed, 7]).standard_normal((_NOISE, len(covariance))) @ root.T
    return drawn
