"""Whether probabilities come true, and whether scaling them would help; for numbers, whether errors are alike everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.evaluation.comparison import holm
from fairway.evaluation.diagnostics import CalibrationBin
from fairway.evaluation.difference import differences
from fairway.evaluation.estimates import (
    Estimate,
    block_count,
    mean_estimate,
    share_estimate,
    split_units,
)
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.reliability import (
    bins,
    brier,
    brier_terms,
    calibration_error,
    mass_edges,
    width_edges,
)
from fairway.evaluation.scaling import SCALINGS, cross_fitted, fit_temperature, thinned

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Classes, Floats, Mask
    from fairway.evaluation.settings import EvaluationSettings

_FEWEST, _FEWEST_GROUPS, _FEWEST_WRONG = 100, 20, 5
"""Rows below which nothing is fitted."""
_MOST = 100_000
"""Rows that scaling is tried on; drawn by the seed where there are more."""
_FIFTHS = 5
_LEVEL = 0.9


class Reliability(msgspec.Struct, frozen=True):
    """One reliability diagram: of what (``predicted class``, or a class), in bins of equal ``width`` or ``mass``."""

    of: str
    binning: str
    bins: tuple[CalibrationBin, ...]
    error: Estimate
    p_value: float


class Scaling(msgspec.Struct, frozen=True):
    """What a scaling would change, each row scaled by a fit on other rows.

    Attributes
    ----------
    method : str
        ``temperature`` or ``isotonic``.
    log_loss, brier, accuracy : Estimate
        Scaled minus as it is, on the same rows.
    error : Estimate
        The calibration error afterwards, in bins of equal mass.
    p_value : float or None
        Of "the log loss stays", corrected for the number of methods (Holm).
    better : bool
        Surely: the log loss falls, and ``p_value`` is at most 1 less the confidence.
    """

    method: str
    log_loss: Estimate
    brier: Estimate
    accuracy: Estimate
    error: Estimate
    p_value: float | None
    better: bool


class Fifth(msgspec.Struct, frozen=True):
    """A fifth of the rows by predicted number: the mean error, its size, and how many errors the band of all rows holds."""

    start: float
    stop: float
    rows: int
    bias: Estimate
    size: Estimate
    coverage: Estimate


class Calibration(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a model's own certainty can be believed.

    Attributes
    ----------
    diagrams : tuple of Reliability
        Of the predicted class; of two classes, of the second one too. Equal width and equal mass.
    brier, miscalibration, resolution, uncertainty : Estimate or None
        The Brier score and its parts: miscalibration - resolution + uncertainty.
    scalings : tuple of Scaling
        What was tried, if there are rows enough.
    recommended : str
        The temperature if it is surely better, since it keeps the order of classes; else isotonic if that is; else empty.
    temperature : Estimate or None
        Fitted on all rows.
    band : float or None
        Of a regression: half the width of the band that holds 90 % of the errors.
    coverage : Estimate or None
        What share of errors it holds, each half of the rows judged by the other half's band.
    fifths : tuple of Fifth
    heteroscedastic, biased : float or None
        p-values of "the size of errors does not change with the prediction" (Spearman) and of "no fifth is biased" (Holm).
    note : str
        Why something is left out.
    """

    diagrams: tuple[Reliability, ...] = ()
    brier: Estimate | None = None
    miscalibration: Estimate | None = None
    resolution: Estimate | None = None
    uncertainty: Estimate | None = None
    scalings: tuple[Scaling, ...] = ()
    recommended: str = ""
    temperature: Estimate | None = None
    band: float | None = None
    coverage: Estimate | None = None
    fifths: tuple[Fifth, ...] = ()
    heteroscedastic: float | None = None
    biased: float | None = None
    note: str = ""


def analyse(subject: Subject) -> Calibration | None:
    """Reliability and scaling of a classifier with probabilities; coverage of error bands of a regression."""
    rows, settings = subject.rows, subject.settings
    if isinstance(rows, Regressed):
        return _bands(rows, settings) if len(rows) >= _FEWEST else None
    if not isinstance(rows, Classified) or rows.probabilities is None:
        return None
    diagrams = tuple(_diagrams(rows, settings))
    score = brier(rows.probabilities, rows.truth, rows.groups, settings.confidence, settings.seed)
    found = Calibration(diagrams)
    if score is not None:
        found = msgspec.structs.replace(
            found,
            brier=score.score,
            miscalibration=score.miscalibration,
            resolution=score.resolution,
            uncertainty=score.uncertainty,
        )
    chosen = rows.select(_some(len(rows), settings.seed)) if len(rows) > _MOST else rows
    if reason := unscalable(chosen):
        return msgspec.structs.replace(found, note=reason)
    scalings = try_scaling(chosen, settings)
    better = [each for each in scalings if each.better]
    return msgspec.structs.replace(
        found,
        scalings=scalings,
        recommended=better[0].method if better else "",
        temperature=_temperature(chosen, settings),
        note=f"Scaling was tried on {_MOST:,} of {len(rows):,} rows" if len(rows) > _MOST else "",
    )


def _some(rows: int, seed: int) -> Mask:
    mask = np.zeros(rows, dtype=bool)
    mask[thinned(np.arange(rows), seed, _MOST)] = True
    return mask


def top_label(rows: Classified) -> tuple[Floats, Mask]:
    """The probability of each row's predicted class, and whether it was right."""
    assert rows.probabilities is not None
    certain = np.minimum(rows.probabilities[np.arange(len(rows)), rows.predicted], 1.0)
    return certain, rows.predicted == rows.truth


def _diagrams(rows: Classified, settings: EvaluationSettings) -> list[Reliability]:
    assert rows.probabilities is not None
    looked = [("predicted class", *top_label(rows))]
    if len(rows.labels) == 2:
        looked.append((rows.labels[1], rows.probabilities[:, 1], rows.truth == 1))
    found = []
    for of, scores, hits in looked:
        for binning, edges in (("width", width_edges()), ("mass", mass_edges(scores))):
            error = calibration_error(scores, hits, edges, rows.groups, settings.confidence, settings.seed)
            shown = bins(scores, hits, edges, settings.confidence)
            found.append(Reliability(of, binning, shown, error.error, error.p_value))
    return found


def unscalable(rows: Classified) -> str:
    """Why nothing can be fitted on these rows; empty if it can.

    Where (nearly) all rows are right, the more certain the model is made the better it looks: they bound no temperature.
    """
    units = len(rows) if rows.groups is None else int(rows.groups.max()) + 1
    if len(rows) < _FEWEST or units < _FEWEST_GROUPS:
        return f"Scaling needs {_FEWEST} rows and {_FEWEST_GROUPS} groups; there are too few"
    wrong = int((rows.truth != rows.predicted).sum())
    if min(wrong, len(rows) - wrong) < _FEWEST_WRONG:
        needed = f"Scaling needs {_FEWEST_WRONG} rows that are wrong and as many that are right"
        return f"{needed}; {wrong:,} of {len(rows):,} are wrong"
    return ""


def try_scaling(
    rows: Classified, settings: EvaluationSettings, methods: Sequence[str] = tuple(SCALINGS)
) -> tuple[Scaling, ...]:
    """What each method would change, each row scaled by a fit on others; ``probabilities`` must be there."""
    assert rows.probabilities is not None
    tried = {method: cross_fitted(rows, method, settings.seed) for method in methods}
    names = ("log_loss", "accuracy_score")
    changes = {
        method: differences(scaled, rows, names, settings, versus="as it is") for method, scaled in tried.items()
    }
    adjusted = holm([changes[method][0].p_value for method in tried])
    before = brier_terms(rows.probabilities, rows.truth)
    found = []
    for (method, scaled), p_value in zip(tried.items(), adjusted, strict=True):
        assert scaled.probabilities is not None
        loss, accuracy = (_estimate(each.measurement) for each in changes[method])
        after = brier_terms(scaled.probabilities, rows.truth) - before
        scores, hits = top_label(scaled)
        error = calibration_error(scores, hits, mass_edges(scores), rows.groups, settings.confidence, settings.seed)
        surely = p_value is not None and p_value <= 1 - settings.confidence and loss.value < 0
        change = mean_estimate(after, rows.groups, settings.confidence)
        found.append(Scaling(method, loss, change, accuracy, error.error, p_value, surely))
    return tuple(found)


def _temperature(rows: Classified, settings: EvaluationSettings) -> Estimate:
    """Fitted on all rows; its interval by leaving out one of twenty blocks at a time, on the logarithm's scale."""
    from scipy.stats import t

    assert rows.probabilities is not None
    kept = thinned(np.arange(len(rows)), settings.seed)
    chosen, truth = rows.probabilities[kept], rows.truth[kept]
    blocks = split_units(len(kept), None if rows.groups is None else rows.groups[kept], 20, settings.seed)
    whole = np.log(fit_temperature(chosen, truth))
    parts = np.array([np.log(fit_temperature(chosen[blocks != b], truth[blocks != b])) for b in np.unique(blocks)])
    count = len(parts)
    error = float(np.sqrt((count - 1) / count * ((parts - parts.mean()) ** 2).sum()))
    reach = float(t.ppf((1 + settings.confidence) / 2, count - 1)) * error
    return Estimate(float(np.exp(whole)), float(np.exp(whole - reach)), float(np.exp(whole + reach)))


def _bands(rows: Regressed, settings: EvaluationSettings) -> Calibration | None:
    from scipy.stats import spearmanr, ttest_1samp

    if block_count(len(rows), rows.groups) < 20:
        return None
    errors = rows.predicted - rows.truth
    sizes = np.abs(errors)
    half = split_units(len(rows), rows.groups, 2, settings.seed)
    held = np.zeros(len(rows), dtype=bool)
    for number in (0, 1):
        held[half == number] = sizes[half == number] <= _upper(sizes[half != number])
    edges = np.unique(np.quantile(rows.predicted, np.linspace(0, 1, _FIFTHS + 1)[1:-1]))
    place = np.searchsorted(edges, rows.predicted, side="right")
    ends = [float(rows.predicted.min()), *edges.tolist(), float(rows.predicted.max())]
    fifths, p_values = [], list[float | None]()
    for number in np.unique(place).tolist():
        inside = rows.select(place == number)
        own, groups = inside.predicted - inside.truth, inside.groups
        bias = mean_estimate(own, groups, settings.confidence)
        size = mean_estimate(np.abs(own), groups, settings.confidence)
        coverage = share_estimate(held[place == number], groups, settings.confidence)
        fifths.append(Fifth(ends[number], ends[number + 1], len(inside), bias, size, coverage))
        sums = _unit_means(own, groups)
        p_values.append(float(ttest_1samp(sums, 0).pvalue) if len(sums) > 4 and np.ptp(sums) > 0 else None)
    tested = [p for p in holm(p_values) if p is not None]
    constant = np.ptp(rows.predicted) == 0 or np.ptp(sizes) == 0
    return Calibration(
        band=_upper(sizes),
        coverage=share_estimate(held, rows.groups, settings.confidence),
        fifths=tuple(fifths),
        heteroscedastic=None if constant or rows.groups is not None else float(spearmanr(rows.predicted, sizes).pvalue),
        biased=min(tested, default=None),
    )


def _upper(sizes: Floats) -> float:
    """The band's half width: with it, a further error is held with a probability of at least the level (split conformal)."""
    rank = int(np.ceil(_LEVEL * (len(sizes) + 1)))
    return float(np.sort(sizes)[min(rank, len(sizes)) - 1])


def _unit_means(values: Floats, groups: Classes | None) -> Floats:
    if groups is None:
        return values
    return np.bincount(groups, weights=values) / np.bincount(groups)


def _estimate(found: object) -> Estimate:
    from fairway.core.metrics import Measurement

    assert isinstance(found, Measurement)
    finite = np.isfinite(found.low) and np.isfinite(found.high)
    return Estimate(found.value, found.low, found.high) if finite else Estimate(found.value)
