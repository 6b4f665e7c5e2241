"""Intervals and tests of metrics of tallied rows: from the influence of units where it is known, else from drawn weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fairway.evaluation.influence import Spread, effective_units, spread
from fairway.evaluation.intervals import (
    draws_interval,
    draws_p_value,
    logit_interval,
    proportion_interval,
    skewed_interval,
    skewed_p_value,
)
from fairway.evaluation.tallied import Form, Influence, Scale, Sums, Tallied

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats
    from fairway.evaluation.settings import EvaluationSettings

FEW = 30
_FEWEST = 5
_PSEUDO = 0.5
"""What one pseudo-unit is worth: half a unit, or half a group."""
_PRIOR = 5.0
"""Units that are all or nothing, added to those from which it is estimated how much a unit tells."""
_CHUNK = 1_000_000
"""Weights held at once, or rows at a time if these are more."""


class Found(NamedTuple):
    """An interval and how it was made; of a difference also its test's p-value, standard error and name."""

    ends: tuple[float, float] | None
    method: str
    p_value: float = 1.0
    error: float = 0.0
    test: str = ""


def interval(name: str, rows: Tallied, settings: EvaluationSettings) -> Found:
    """The interval of one metric; its ends are ``None`` where the units do not show how much it varies."""
    form = rows.forms[name]
    count, of = _independent(rows)
    plain = form.influence(rows)
    if plain is None:
        draws = draw(name, [rows], settings)[0]
        return Found(
            draws_interval(draws, settings.confidence, rows=count) if np.isfinite(draws).all() else None,
            f"bootstrap{of}, {settings.resamples:,} resamples{_few(rows)}",
        )
    mass = _pseudo_mass(plain, rows.groups)
    found = form.influence(rows, mass * rows.units / max(count, 1)) or plain
    over = _spread(found, rows.groups, mass)
    if form.scale is Scale.LOGIT:
        if not plain.slopes.any() and plain.value in (form.low, form.high) and count >= _FEWEST:
            return Found(_flawless_interval(form, plain.value, count, settings.confidence), f"exact{of}{_few(rows)}")
        ends = _logit_interval(form, found.value, over, settings.confidence)
        # Near its end of the range the pseudo-units pull the whole interval away from it: the other end is that without them.
        if ends is not None:
            ends = _widened(form, plain, rows, ends, settings.confidence)
        return Found(ends, f"t on the logit scale{of}{_few(rows)}")
    doubt = _few(rows) or _dominated(found, rows.groups)
    if form.scale is Scale.PLAIN:
        skewed = skewed_interval(found.value, over, settings.confidence)
        ends = None if skewed is None else (max(skewed[0], form.low), min(skewed[1], form.high))
        return Found(ends, f"t, corrected for skewness (Hall){of}{doubt}")
    ends = _transformed_interval(form.scale, found.value, over, settings.confidence)
    return Found(ends, f"t on the scale of {'the logarithm' if form.scale is Scale.LOG else form.scale}{of}{doubt}")


def difference(name: str, rows: Tallied, champion: Tallied, settings: EvaluationSettings) -> Found:
    """The interval and test of candidate minus champion by one metric, on the same units."""
    form = rows.forms[name]
    _, of = _independent(rows)
    ours, theirs = form.influence(rows), champion.forms[name].influence(champion)
    if ours is None or theirs is None:
        return _drawn(name, rows, champion, settings)
    estimate = ours.value - theirs.value
    apart = ours.slopes - theirs.slopes
    differing = apart[apart != 0]
    # Two models that part nowhere, or on a handful of units, are not as alike as these say: one further unit that parts them.
    unseen = float(np.sqrt((differing**2).mean())) if len(differing) else _typical(form, rows, ours)
    size = unseen * math.sqrt(rows.units / max(_independent(rows)[0], 1)) if rows.groups is not None else unseen
    over = _spread(Influence(estimate, apart, np.array([size, -size])), rows.groups, _PSEUDO)
    over = over._replace(skewness=0.0)  # of equal models the difference is symmetric
    ends = skewed_interval(estimate, over, settings.confidence)
    doubt = _few(rows)
    if form.scale in (Scale.PLAIN, Scale.LOG):
        doubt = doubt or _dominated(ours, rows.groups) or _dominated(theirs, rows.groups)
    test = f"paired t{of}"
    return Found(ends, test + doubt, skewed_p_value(estimate, over), over.error, test)


def draw(name: str, models: list[Tallied], settings: EvaluationSettings) -> list[Floats]:
    """Bootstrap draws of a metric of each model, of shape (resamples,), from the same weights of units or groups."""
    forms = [model.forms[name] for model in models]
    parts: list[list[Floats]] = [[] for _ in models]
    for weights in _weights(models[0], settings, counted=forms[0].counted):
        for part, one, model in zip(parts, forms, models, strict=True):
            part.append(one.draw(model, weights))
    return [np.concatenate(part) for part in parts]


def _weights(rows: Tallied, settings: EvaluationSettings, *, counted: bool) -> Iterator[Floats]:
    """Rubin's Bayesian bootstrap: exponential weights of the units, those of one group alike; ``counted``: whole numbers."""
    rng = np.random.default_rng([settings.seed, 3])
    count, _ = _independent(rows)
    step = max(1, _CHUNK // max(rows.units, 1))
    for start in range(0, settings.resamples, step):
        size = min(step, settings.resamples - start)
        drawn = (
            rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
            if counted
            else rng.standard_exponential((size, count))
        )
        yield drawn if rows.groups is None else drawn[:, rows.groups]


def _drawn(name: str, rows: Tallied, champion: Tallied, settings: EvaluationSettings) -> Found:
    count, of = _independent(rows)
    ours, theirs = draw(name, [rows, champion], settings)
    moved = ours - theirs
    if not np.isfinite(moved).all():
        return Found(None, "")
    return Found(
        draws_interval(moved, settings.confidence, rows=count),
        f"paired bootstrap{of}, {settings.resamples:,} resamples{_few(rows)}",
        draws_p_value(moved, rows=count),
        float(moved.std()),
        "paired bootstrap",
    )


def _spread(found: Influence, groups: Classes | None, mass: float) -> Spread:
    """Of the real units and the pseudo-units, each of which counts as ``mass`` of a unit (or group)."""
    over = spread(found.slopes, groups)
    if not len(found.unseen):
        return over
    count = over.units + mass * len(found.unseen)
    total = over.deviation**2 * max(over.freedom, 1) + mass * float((found.unseen**2).sum())
    return over._replace(deviation=math.sqrt(total / max(count - 1, 1) * over.units / count))


def _pseudo_mass(plain: Influence, groups: Classes | None) -> float:
    """What one pseudo-unit is worth: half a unit that is right or wrong as a whole.

    Units that are partly right tell more: one whose variance is a tenth of that is worth ten trials, so half a trial is a
    twentieth of a unit. How much they tell is itself known only from units with something wrong (or right), so a few such
    units are added that are all or nothing.
    """
    if len(plain.unseen) < 2:
        return 0.0
    slopes = plain.slopes
    if groups is not None:
        sums = np.bincount(groups, weights=slopes)
        slopes = np.asarray(sums * (len(sums) / len(slopes)))
    best, worst = float(plain.unseen.max()), float(plain.unseen.min())
    most = -best * worst  # the variance of units that are all or nothing, with this mean
    if most <= 0:
        return _PSEUDO
    telling = min(effective_units(np.abs(side), None) for side in (best - slopes, slopes - worst))
    telling = telling if (slopes != 0).any() else 0.0
    share = min(1.0, float((slopes**2).mean()) / most)
    return _PSEUDO * (share * telling + _PRIOR) / (telling + _PRIOR)


def _logit_interval(form: Form, value: float, over: Spread, confidence: float) -> tuple[float, float] | None:
    """A t interval of the logit of a metric between ``form.low`` and ``form.high``."""
    span = form.high - form.low
    share = (value - form.low) / span
    if over.units < _FEWEST or over.deviation == 0 or not 0 < share < 1:
        return None
    low, high = logit_interval(share, over.error / span, over.freedom, confidence)
    return form.low + span * low, form.low + span * high


def _flawless_interval(form: Form, value: float, count: int, confidence: float) -> tuple[float, float]:
    """Where all units are flawless (or all wrong): that of a share of units that are wrong (or right) as a whole."""
    low, high = proportion_interval(count if value == form.high else 0, count, confidence)
    span = form.high - form.low
    return form.low + span * low, form.low + span * high


def _widened(
    form: Form, plain: Influence, rows: Tallied, ends: tuple[float, float], confidence: float
) -> tuple[float, float]:
    without = _logit_interval(form, plain.value, spread(plain.slopes, rows.groups), confidence)
    low, high = without or (plain.value, plain.value)
    return (min(low, ends[0]), ends[1]) if plain.value < (form.low + form.high) / 2 else (ends[0], max(high, ends[1]))


def _transformed_interval(scale: Scale, value: float, over: Spread, confidence: float) -> tuple[float, float] | None:
    there, back = (math.log, math.exp) if scale is Scale.LOG else (math.atanh, math.tanh)
    if (value <= 0) if scale is Scale.LOG else (abs(value) >= 1):
        return None
    slope = 1 / value if scale is Scale.LOG else 1 / (1 - value**2)
    skewness = over.skewness if scale is Scale.LOG else 0.0
    moved = over._replace(deviation=over.deviation * slope, skewness=skewness)
    ends = skewed_interval(there(value), moved, confidence)
    return None if ends is None else (back(min(ends[0], 700.0)), back(min(ends[1], 700.0)))


def _typical(form: Form, rows: Tallied, found: Influence) -> float:
    """How far a unit may part models that parted nowhere."""
    unseen = form.influence(rows, 1.0)
    if unseen is not None and len(unseen.unseen):
        return float(np.ptp(unseen.unseen))
    return float(np.sqrt((found.slopes**2).mean()))


def _independent(rows: Tallied) -> tuple[int, str]:
    """How many independent units or groups there are, and a word for the latter."""
    return (rows.units, "") if rows.groups is None else (int(rows.groups.max(initial=-1)) + 1, " of groups")


def _few(rows: Tallied) -> str:
    count, _ = _independent(rows)
    return f"; approximate: only {count} groups" if rows.groups is not None and count < FEW else ""


def _dominated(found: Influence, groups: Classes | None) -> str:
    """A warning, where a few units make up most of how the metric varies."""
    sums = found.slopes if groups is None else np.bincount(groups, weights=found.slopes)
    effective = effective_units(np.abs(sums), None) * math.pi / 2  # as many as there are, where they are normal
    what = "rows" if groups is None else "groups"
    return f"; approximate: a few {what} decide it, as if there were {effective:.0f}" if effective < FEW else ""


def is_share(form: Form) -> bool:
    """Whether the metric is a share of units, whose interval is that of a proportion and whose test is McNemar's."""
    return isinstance(form, Sums) and form.share


def hits(name: str, rows: Tallied) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of a share: which units count."""
    form = rows.forms[name]
    assert isinstance(form, Sums)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = rows.blocks[form.blocks[0]][:, 0] > 0
    return found
