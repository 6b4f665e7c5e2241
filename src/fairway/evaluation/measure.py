"""Measurements: a metric's value with its interval, of one model or of the difference between two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from fairway.core.metrics import Measurement
from fairway.evaluation import resampling
from fairway.evaluation.intervals import EXACT, MATCHED, draws_interval, matched_interval, proportion_interval
from fairway.evaluation.metrics import cannot, missing_for, value
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.weighted import CONFUSION_SCORES

_RANGES = {"log_loss": (0.0, math.inf), "r2_score": (-math.inf, 1.0), "roc_auc_score": (0.0, 1.0)}
_CALIBRATED = (*CONFUSION_SCORES, "roc_auc_score")
"""Their pseudo-rows already keep them honest on few rows."""


def measure(rows: Scored, names: Sequence[str], settings: EvaluationSettings, *, part: str = "") -> list[Measurement]:
    """Measure a model on ``rows``, which are those of the slice ``part`` (empty: all)."""
    usable, found = _sort_out(names, [rows], settings, part, "")
    draws = _draw([rows], [name for name in usable if name != "accuracy_score"], settings)[0] if usable else {}
    for name in usable:
        estimate = value(name, rows)
        low, high, method = _own_interval(name, rows, draws, settings)
        low, high = min(low, estimate), max(high, estimate)  # pseudo-rows may move percentiles past a flawless estimate
        found[name] = Measurement(
            name, estimate, low, high, confidence=settings.confidence, n=len(rows), slice=part, method=method
        )
    return [found[name] for name in names]


def measure_difference(
    rows: Scored, champion: Scored, names: Sequence[str], settings: EvaluationSettings, *, versus: str, part: str = ""
) -> list[Measurement]:
    """Measure candidate minus champion on the same rows."""
    usable, found = _sort_out(names, [rows, champion], settings, part, versus)
    drawn = [name for name in usable if name != "accuracy_score"]
    ours, theirs = _draw([rows, champion], drawn, settings) if drawn else ({}, {})
    for name in usable:
        estimate = value(name, rows) - value(name, champion)
        if name == "accuracy_score":
            low, high = _matched(cast(Classified, rows), cast(Classified, champion), settings.confidence)
            method = MATCHED
        else:
            expand = None if name in _CALIBRATED else len(rows)
            ends = draws_interval(ours[name] - theirs[name], settings.confidence, rows=expand)
            low, high = ends or (-math.inf, math.inf)
            method = f"paired {_method(settings)}" if ends else _too_little(rows, "difference")
        found[name] = Measurement(
            name,
            estimate,
            low,
            high,
            confidence=settings.confidence,
            n=len(rows),
            slice=part,
            versus=versus,
            method=method,
        )
    return [found[name] for name in names]


def _sort_out(
    names: Sequence[str], models: Sequence[Scored], settings: EvaluationSettings, part: str, versus: str
) -> tuple[list[str], dict[str, Measurement]]:
    """The metrics that can be computed, and measurements that say why not of the others."""
    found: dict[str, Measurement] = {}
    fields = {"n": len(models[0]), "slice": part, "versus": versus, "confidence": settings.confidence}
    for name in names:
        if fault := next(filter(None, (cannot(name, rows) for rows in models)), ""):
            found[name] = Measurement.failed(name, fault, **fields)
        elif reason := missing_for(name, models[0]):
            found[name] = Measurement.unknown(name, reason, **fields)
    return [name for name in names if name not in found], found


def _own_interval(
    name: str, rows: Scored, draws: resampling.Draws, settings: EvaluationSettings
) -> tuple[float, float, str]:
    if name == "accuracy_score":
        assert isinstance(rows, Classified)
        low, high = proportion_interval(int((rows.truth == rows.predicted).sum()), len(rows), settings.confidence)
        return low, high, EXACT
    expand = None if name in _CALIBRATED else len(rows)
    ends = draws_interval(draws[name], settings.confidence, rows=expand)
    if name == "roc_auc_score" and ends is not None:
        # Near 1 the pseudo-rows, ranked as wrong as can be, pull the whole interval down: its upper end is that without them.
        assert isinstance(rows, Classified)
        plain = resampling.draw_classification([rows], [name], settings.resamples, settings.seed, pseudo=False)[0][name]
        tail = (1 + settings.confidence) / 2
        ends = ends[0], max(ends[1], float(np.quantile(plain, tail)))
    if ends is None:
        default = (0.0, 1.0) if isinstance(rows, Classified) else (0.0, math.inf)
        return *_RANGES.get(name, default), _too_little(rows, "value")
    return *ends, _method(settings)


def _draw(models: Sequence[Scored], names: Sequence[str], settings: EvaluationSettings) -> list[resampling.Draws]:
    if isinstance(models[0], Classified):
        classified = cast("Sequence[Classified]", models)
        return resampling.draw_classification(classified, names, settings.resamples, settings.seed)
    regressed = cast("Sequence[Regressed]", models)
    return resampling.draw_regression(regressed, names, settings.resamples, settings.seed)


def _matched(rows: Classified, champion: Classified, confidence: float) -> tuple[float, float]:
    ours, theirs = rows.predicted == rows.truth, champion.predicted == champion.truth
    return matched_interval(int(np.sum(ours & ~theirs)), int(np.sum(~ours & theirs)), len(rows), confidence)


def _method(settings: EvaluationSettings) -> str:
    return f"bootstrap, {settings.resamples:,} resamples"


def _too_little(rows: Scored, what: str) -> str:
    return f"no interval: {len(rows):,} rows do not show how much the {what} varies"
