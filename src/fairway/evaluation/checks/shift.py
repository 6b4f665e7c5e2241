"""Whether the test data look like the reference: a classifier that tries to tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fairway.core.extras import require
from fairway.evaluation.checks.base import Check, Encoded, Severity, encoded, sampled, without_reference
from fairway.evaluation.comparison import holm
from fairway.evaluation.estimates import Estimate, area_terms
from fairway.evaluation.influence import spread
from fairway.evaluation.intervals import skewed_interval

if TYPE_CHECKING:
    from fairway.evaluation.checks.base import Looked
    from fairway.evaluation.predictions import Floats

_ROWS = 2_000
_FEWEST = 60
_TOLD = 0.6
"""An AUC from which a shift is more than a trifle."""
_SHOWN = 10


def shift_checks(looked: Looked) -> Iterator[Check]:
    """Adversarial validation, and which columns moved."""
    name = "shift from the reference"
    if looked.reference is None:
        yield without_reference(name, looked)
        return
    settings = looked.subject.settings
    tables = [table.select(sampled(table.rows, _ROWS, settings.seed)) for table in (looked.test, looked.reference)]
    test, known = encoded(tables, looked.columns)
    if min(len(test.matrix), len(known.matrix)) < _FEWEST or not test.names:
        yield Check(name, Severity.SKIPPED, f"Not looked for: fewer than {_FEWEST} rows, or no columns to compare.")
        return
    area = adversarial_auc(test.matrix, known.matrix, settings.confidence, settings.seed)
    moved = moved_columns(test, known, 1 - settings.confidence)
    told = f"a classifier tells test rows from reference rows with AUC {area.value:.3f} (0.5: not at all)"
    if not area.above(0.5) and not moved:
        yield Check(name, Severity.FINE, f"None found: {told}.", value=area)
        return
    large = area.above(0.5) and area.value >= _TOLD
    yield Check(
        name,
        Severity.WARNING if large else Severity.NOTE,
        f"{told[0].upper()}{told[1:]}"
        + (f"; {len(moved)} columns are distributed differently." if moved else "; no single column stands out."),
        "The report says how good the model is on data like these, not on data like the reference: is that what it will meet?"
        if large
        else "The difference is small.",
        columns=tuple(moved[:_SHOWN]),
        value=area,
    )


def adversarial_auc(test: Floats, reference: Floats, confidence: float, seed: int) -> Estimate:
    """The AUC of a forest that is to tell test rows from reference rows, cross-validated, with DeLong's interval.

    References
    ----------
    D. Lopez-Paz, M. Oquab, "Revisiting classifier two-sample tests", ICLR 2017.
    """
    ensemble = require("sklearn.ensemble", extra="evaluate")
    whole = np.concatenate([test, reference])
    medians = np.nan_to_num(np.nanmedian(np.where(np.isfinite(whole), whole, np.nan), axis=0)) if len(whole) else 0.0
    whole = np.where(np.isfinite(whole), whole, medians - 1e6)  # a gap is a value of its own
    from_test = np.arange(len(whole)) < len(test)
    rng = np.random.default_rng([seed, 53])
    fold = np.empty(len(whole), dtype=np.intp)
    for side in (from_test, ~from_test):
        fold[side] = rng.permutation(int(side.sum())) % 5
    slopes, areas = np.zeros(len(whole)), []
    for number in range(5):
        forest = ensemble.ExtraTreesClassifier(
            n_estimators=60, min_samples_leaf=3, class_weight="balanced", random_state=seed % 2**32
        )
        fitted = forest.fit(whole[fold != number], from_test[fold != number])
        own = fold == number
        area, influence = area_terms(fitted.predict_proba(whole[own])[:, 1], from_test[own])
        areas.append(area)
        slopes[own] = influence
    value = float(np.mean(areas))
    ends = skewed_interval(value, spread(slopes, None), confidence)
    return Estimate(value) if ends is None else Estimate(value, max(0.0, ends[0]), min(1.0, ends[1]))


def moved_columns(test: Encoded, reference: Encoded, alpha: float) -> list[str]:
    """The columns whose distributions differ, most certain first (Kolmogorov-Smirnov, or chi-squared of kinds; Holm)."""
    from scipy.stats import chi2_contingency, ks_2samp

    p_values: list[float | None] = []
    for place, numeric in enumerate(test.numeric):
        first, second = (one.matrix[:, place] for one in (test, reference))
        first, second = first[np.isfinite(first)], second[np.isfinite(second)]
        if min(len(first), len(second)) < 20 or np.ptp(np.concatenate([first, second])) == 0:
            p_values.append(None)
        elif numeric or "length of" in test.names[place] or "words in" in test.names[place]:
            p_values.append(float(ks_2samp(first, second, method="asymp").pvalue))
        else:
            kinds, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
            counts = np.stack([np.bincount(part, minlength=len(kinds)) for part in np.split(codes, [len(first)])])
            p_values.append(float(chi2_contingency(counts).pvalue))
    adjusted = holm(p_values)
    found = [(p, place) for place, p in enumerate(adjusted) if p is not None and p <= alpha]
    return [test.names[place] for _, place in sorted(found)]
