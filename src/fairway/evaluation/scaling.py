"""Probabilities made better calibrated after the fact: by one temperature, or by isotonic regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fairway.core.extras import require
from fairway.evaluation.estimates import split_units

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Classified, Floats

FLOOR = 1e-12
"""Probabilities below are taken for this one, so that their logarithm is finite."""
_FOLDS = 5
_FIT_ROWS = 20_000
Apply = Callable[["Floats"], "Floats"]


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """``softmax(log(p) / temperature)``: above 1 less certain, below 1 more; the order of classes stays.

    Examples
    --------
    >>> apply_temperature(np.array([[0.9, 0.1]]), 2.0).round(2).tolist()
    [[0.75, 0.25]]
    """
    scores = np.log(np.maximum(probabilities, FLOOR)) / temperature
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    scaled: Floats = odds / odds.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(probabilities: Floats, truth: Classes) -> float:
    """The temperature with the least log loss on these rows, between 0.05 and 20.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017, sec. 4.2.
    """
    from scipy.optimize import minimize_scalar

    scores = np.log(np.maximum(probabilities, FLOOR))
    scores -= scores.max(axis=1, keepdims=True)
    own = float(scores[np.arange(len(truth)), truth].mean())

    def loss(log_temperature: float) -> float:
        slope = np.exp(-log_temperature)
        return float(np.log(np.exp(scores * slope).sum(axis=1)).mean()) - own * float(slope)

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def temperature_scaling(probabilities: Floats, truth: Classes) -> Apply:
    """Fit a temperature; gives the function that applies it."""
    temperature = fit_temperature(probabilities, truth)
    return lambda given: apply_temperature(given, temperature)


def isotonic_scaling(probabilities: Floats, truth: Classes) -> Apply:
    """Fit a rising step function per class, one class against the rest; gives the function that applies and normalizes them.

    References
    ----------
    B. Zadrozny, C. Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
    """
    isotonic = require("sklearn.isotonic", extra="evaluate").IsotonicRegression
    classes = probabilities.shape[1]
    least = 1 / (len(truth) + 2)  # no share of a finite sample is certain
    chosen = [1] if classes == 2 else range(classes)
    fitted = [
        isotonic(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(probabilities[:, c], truth == c)
        for c in chosen
    ]

    def apply(given: Floats) -> Floats:
        if classes == 2:
            second = fitted[0].predict(given[:, 1])
            return np.stack([1 - second, second], axis=1)
        parts = np.stack([one.predict(given[:, c]) for c, one in enumerate(fitted)], axis=1)
        normal: Floats = parts / parts.sum(axis=1, keepdims=True)
        return normal

    return apply


SCALINGS: dict[str, Callable[[Floats, Classes], Apply]] = {
    "temperature": temperature_scaling,
    "isotonic": isotonic_scaling,
}


def cross_fitted(rows: Classified, method: str, seed: int) -> Classified:
    """The rows with scaled probabilities; each row's scaling was fitted on the other four fifths (of rows, or of groups)."""
    assert rows.probabilities is not None
    fold = split_units(len(rows), rows.groups, _FOLDS, seed)
    scaled = np.empty_like(rows.probabilities)
    for number in range(_FOLDS):
        own, others = fold == number, np.flatnonzero(fold != number)
        others = thinned(others, seed)
        scaled[own] = SCALINGS[method](rows.probabilities[others], rows.truth[others])(rows.probabilities[own])
    # the order of classes stays with a temperature: rounding must not change which is first
    predicted = rows.predicted if method == "temperature" else scaled.argmax(axis=1)
    return replace(rows, probabilities=scaled, predicted=predicted)


def thinned(places: Classes, seed: int, most: int = _FIT_ROWS) -> Classes:
    """At most so many of the places, drawn by ``seed``: a temperature needs no more."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng([seed, 8]).choice(places, most, replace=False))
