"""Measurements: a metric's value with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from fairway.core.mapping import THREADS, Mapper
from fairway.core.metrics import Measurement
from fairway.evaluation import certainty, resampling
from fairway.evaluation.influence import effective_units, influence, spread, terms
from fairway.evaluation.intervals import (
    AREA,
    CLUSTERED,
    SKEWED,
    draws_interval,
    grouped_proportion_interval,
    proportion_interval,
    proportion_method,
    skewed_interval,
)
from fairway.evaluation.metrics import cannot, missing_for, values
from fairway.evaluation.predictions import Classes, Classified, Regressed, Scored
from fairway.evaluation.roc import area_interval
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.tallied import Tallied

_RANGES = {"log_loss": (0.0, math.inf), "r2_score": (-math.inf, 1.0), "roc_auc_score": (0.0, 1.0)}
_MEANS = ("log_loss", "mean_absolute_error", "root_mean_squared_error", "r2_score")
"""Means of what single rows can dominate, or smooth functions of them: a skewness-corrected t interval covers best."""
FEW = 30
"""Effective rows (or groups) of a mean below which its interval is called approximate; decision 0009 has the figures."""


def measure(
    rows: Scored, names: Sequence[str], settings: EvaluationSettings, *, part: str = "", mapper: Mapper = THREADS
) -> list[Measurement]:
    """Measure a model on ``rows``, which are those of the slice ``part`` (empty: all). ``mapper`` draws."""
    usable, found = sort_out(names, [rows], settings, part, "")
    drawn = [
        name
        for name in usable
        if name not in (*_MEANS, "accuracy_score", "roc_auc_score") and not isinstance(rows, Tallied)
    ]
    draws = draw([rows], drawn, settings, mapper)[0]
    for name, estimate in zip(usable, values(usable, rows), strict=True):
        low, high, method = _own_interval(name, rows, estimate, draws, settings)
        low, high = min(low, estimate), max(high, estimate)  # pseudo-rows may move percentiles past a flawless estimate
        found[name] = Measurement(
            name, estimate, low, high, confidence=settings.confidence, n=count(rows), slice=part, method=method
        )
    return [found[name] for name in names]


def sort_out(
    names: Sequence[str], models: Sequence[Scored], settings: EvaluationSettings, part: str, versus: str
) -> tuple[list[str], dict[str, Measurement]]:
    """The metrics that can be computed, and measurements that say why not of the others."""
    found: dict[str, Measurement] = {}
    fields = {"n": count(models[0]), "slice": part, "versus": versus, "confidence": settings.confidence}
    for name in names:
        if fault := next(filter(None, (cannot(name, rows) for rows in models)), ""):
            found[name] = Measurement.failed(name, fault, **fields)
        elif reason := missing_for(name, models[0]):
            found[name] = Measurement.unknown(name, reason, **fields)
    return [name for name in names if name not in found], found


def draw(
    models: Sequence[Scored], names: Sequence[str], settings: EvaluationSettings, mapper: Mapper
) -> list[resampling.Draws]:
    """Bootstrap draws of each model's metrics, from the same weights: of confusion scores, and of medians."""
    if not names:
        return [{} for _ in models]
    if isinstance(models[0], Classified):
        classified = cast("Sequence[Classified]", models)
        return resampling.draw_scores(
            classified, names, settings.resamples, settings.seed, stratified=settings.stratified, mapper=mapper
        )
    regressed = cast("Sequence[Regressed]", models)
    medians = resampling.draw_medians(regressed, settings.resamples, settings.seed, mapper)
    return [{"median_absolute_error": own} for own in medians]


def strata(rows: Scored, settings: EvaluationSettings) -> Classes | None:
    """The classes, if their numbers of rows are taken as fixed."""
    return rows.truth if settings.stratified and isinstance(rows, Classified) else None


def expansion(rows: Scored) -> int:
    """For how many units draws are widened: rows or groups; of a classifier the harmonic mean over its classes.

    A mean over classes is as uncertain as its rarest class makes it, however many rows there are in all.
    """
    if not isinstance(rows, Classified):
        return units(rows)
    inside = rows.truth
    if rows.groups is not None:  # each class of a group once
        inside = np.unique(rows.groups * len(rows.labels) + rows.truth) % len(rows.labels)
    counts = np.bincount(inside)
    return int(1 / np.mean(1 / counts[counts > 0]))


def count(rows: Scored) -> int:
    """What was measured: rows, or what else is one observation of the task, such as a query."""
    return rows.units if isinstance(rows, Tallied) else len(rows)


def units(rows: Scored) -> int:
    """Independent units: groups, or rows."""
    return count(rows) if rows.groups is None else int(rows.groups.max(initial=-1)) + 1


def bootstrap_method(rows: Scored, settings: EvaluationSettings) -> str:
    """How draws were made, in words."""
    of = " of groups" if rows.groups is not None else " by class" if settings.stratified else ""
    return f"bootstrap{of}, {settings.resamples:,} resamples{few_groups(rows)}"


def few_groups(rows: Scored) -> str:
    """A warning, where there are fewer groups than any method is good for."""
    count = units(rows)
    return f"; approximate: only {count} groups" if rows.groups is not None and count < FEW else ""


def dominated(name: str, models: Sequence[Scored]) -> str:
    """A warning, where a few rows make up most of a mean; empty otherwise."""
    effective = min(effective_units(terms(name, rows), rows.groups) for rows in models)
    what = "rows" if models[0].groups is None else "groups"
    return f"; approximate: a few {what} decide it, as if there were {effective:.0f}" if effective < FEW else ""


def too_little(rows: Scored, what: str) -> str:
    """Why there is no interval."""
    counted = f"{count(rows):,} rows" if rows.groups is None else f"{units(rows):,} groups"
    return f"no interval: {counted} do not show how much the {what} varies"


def _own_interval(
    name: str, rows: Scored, estimate: float, draws: resampling.Draws, settings: EvaluationSettings
) -> tuple[float, float, str]:
    if isinstance(rows, Tallied):
        return _tallied_interval(name, rows, settings)
    method = bootstrap_method(rows, settings)
    if name == "accuracy_score":
        ends, method = _accuracy_interval(cast(Classified, rows), estimate, settings)
    elif name in _MEANS:
        ends, method = _mean_interval(name, rows, estimate, settings), SKEWED + dominated(name, [rows])
    elif name == "roc_auc_score":
        over = spread(influence(name, rows), rows.groups, strata(rows, settings))
        ends = area_interval(cast(Classified, rows), over, settings.confidence)
        of = " of groups" if rows.groups is not None else ""
        method = AREA + of + (few_groups(rows) or dominated(name, [rows]))
    else:
        ends = draws_interval(draws[name], settings.confidence, rows=expansion(rows))
    if ends is None:
        default = (0.0, 1.0) if isinstance(rows, Classified) else (0.0, math.inf)
        return *_RANGES.get(name, default), too_little(rows, "value")
    return *ends, method


def _tallied_interval(name: str, rows: Tallied, settings: EvaluationSettings) -> tuple[float, float, str]:
    form = rows.forms[name]
    if certainty.is_share(form) and rows.groups is None:
        hits = certainty.hits(name, rows)
        return _share_interval(int(hits.sum()), len(hits), settings)
    found = certainty.interval(name, rows, settings)
    return (*found.ends, found.method) if found.ends is not None else (form.low, form.high, too_little(rows, "value"))


def _share_interval(hits: int, count: int, settings: EvaluationSettings) -> tuple[float, float, str]:
    return *proportion_interval(hits, count, settings.confidence), proportion_method(hits, count)


def _accuracy_interval(
    rows: Classified, estimate: float, settings: EvaluationSettings
) -> tuple[tuple[float, float] | None, str]:
    if rows.groups is None:
        hits = int((rows.truth == rows.predicted).sum())
        low, high, method = _share_interval(hits, len(rows), settings)
        return (low, high), method
    over = spread(influence("accuracy_score", rows), rows.groups)
    return grouped_proportion_interval(estimate, len(rows), over, settings.confidence), CLUSTERED + few_groups(rows)


def _mean_interval(
    name: str, rows: Scored, estimate: float, settings: EvaluationSettings
) -> tuple[float, float] | None:
    slopes = influence(name, rows)
    root = name == "root_mean_squared_error"  # the mean of squares, then its root
    over = spread(slopes * (2 * estimate if root else 1.0), rows.groups, strata(rows, settings))
    ends = skewed_interval(estimate**2 if root else estimate, over, settings.confidence)
    if ends is None:
        return None
    low, high = ends if name == "r2_score" else (max(0.0, ends[0]), ends[1])
    if name == "r2_score":
        high = min(high, 1.0)
    return (math.sqrt(low), math.sqrt(high)) if root else (low, high)
