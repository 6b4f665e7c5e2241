"""Whether groups of people are treated alike: metrics by group, differences with intervals, corrected tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.metrics import Measurement
from fairway.evaluation.analyses.thresholds import positive_classes
from fairway.evaluation.comparison import holm
from fairway.evaluation.estimates import Estimate, mean_estimate, share_estimate
from fairway.evaluation.fairness import (
    FEWEST,
    Rates,
    by_group,
    classified_rates,
    group_draws,
    largest_difference,
    least_ratio,
    regressed_rates,
)
from fairway.evaluation.intervals import draws_p_value
from fairway.evaluation.labels import missing_values
from fairway.evaluation.predictions import Classified, Regressed

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Classes, Floats, Scored
    from fairway.evaluation.settings import EvaluationSettings
    from fairway.sources.tables import Table

GATED = ("demographic_parity_difference", "equalized_odds_difference")
"""Metrics that a gate may limit where ``[evaluate] sensitive`` names columns."""
_MOST = 20
_MISSING = "(missing)"


class _Known(NamedTuple):
    """One metric in the groups of one column: its values and draws of them, of shape (resamples, groups)."""

    rates: Rates
    values: dict[int, float]
    draws: Floats


class GroupRate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric in one group.

    ``rows`` are those that define it; ``None`` is the value where there are none. ``p_value`` is of "as in the rest of the
    rows", corrected for the number of groups (Holm); ``None`` where the group is too small to tell.
    """

    group: str
    metric: str
    rows: int
    value: Estimate | None
    p_value: float | None = None
    differs: bool = False


class GroupGap(msgspec.Struct, frozen=True):
    """The largest difference of a metric between two groups; ``ratio`` is the least one of rates."""

    metric: str
    difference: Estimate
    ratio: Estimate | None


class Fairness(msgspec.Struct, frozen=True):
    """One sensitive column, or several together (``sex × age``).

    Attributes
    ----------
    column : str
    groups : dict of str to int
        Rows per group.
    rates : tuple of GroupRate
    gaps : tuple of GroupGap
        ``demographic parity`` and ``equalized odds`` among them where there is a positive class.
    small : tuple of str
        Groups of fewer than 30 rows: nothing can be told of them.
    """

    column: str
    groups: dict[str, int]
    rates: tuple[GroupRate, ...]
    gaps: tuple[GroupGap, ...]
    small: tuple[str, ...]


def analyse(subject: Subject) -> tuple[Fairness, ...] | None:
    """Every column of ``[evaluate] sensitive``, and all together if there are several; ``None`` without any.

    Raises
    ------
    InvalidConfig
        If a column has more than twenty values.
    InvalidData
        If there is no such column.
    MissingExtra
        If fairlearn is not installed.
    """
    rows, settings = subject.rows, subject.settings
    if not settings.sensitive or not isinstance(rows, Classified | Regressed):
        return None
    rates = _rates(rows, settings)
    parted = [(name, *_members(subject.table, name)) for name in settings.sensitive]
    if len(parted) > 1:
        parted.append(_together(parted))
    return tuple(_of_column(name, names, members, rates, rows, settings) for name, names, members in parted)


def measure_fairness(rows: Scored, table: Table, settings: EvaluationSettings) -> list[Measurement]:
    """The metrics that a gate may limit: the largest difference in any sensitive column, intervals corrected for their number.

    None without sensitive columns, or without a positive class.
    """
    if not settings.sensitive or not isinstance(rows, Classified) or len(positive_classes(rows, settings)) != 1:
        return []
    confidence = 1 - (1 - settings.confidence) / len(settings.sensitive)
    worst: dict[str, list[Estimate]] = {name: [] for name in GATED}
    rates = _rates(rows, settings)
    for column in settings.sensitive:
        names, members = _members(table, column)
        gaps = _odds([_known(each, members, len(names), rows, settings) for each in rates], confidence)
        for name, gap in zip(GATED, gaps, strict=True):
            worst[name].append(gap.difference)
    method = f"largest over {', '.join(settings.sensitive)}; bootstrap of all pairs of groups"
    return [_measurement(name, found, method, rows, settings) for name, found in worst.items()]


def _measurement(
    name: str, found: list[Estimate], method: str, rows: Classified, settings: EvaluationSettings
) -> Measurement:
    if any(each.high is None for each in found):
        return Measurement.unknown(name, "a column of a single group has nothing to compare", n=len(rows))
    value, low, high = (max(getattr(each, end) for each in found) for end in ("value", "low", "high"))
    return Measurement(name, value, low, high, confidence=settings.confidence, n=len(rows), method=method)


def _rates(rows: Classified | Regressed, settings: EvaluationSettings) -> list[Rates]:
    if isinstance(rows, Regressed):
        return regressed_rates(rows.predicted - rows.truth)
    chosen = positive_classes(rows, settings)
    right = rows.truth == rows.predicted
    if len(chosen) != 1:
        return classified_rates(None, None, right)
    return classified_rates(rows.truth == chosen[0], rows.predicted == chosen[0], right)


def _members(table: Table, column: str) -> tuple[list[str], Classes]:
    """The names of a column's groups, and which one each row is of."""
    values = table.column(column)
    missing = missing_values(values)
    texts = [_MISSING if gone else _name(value) for value, gone in zip(values.tolist(), missing.tolist(), strict=True)]
    names = sorted(set(texts))
    if values.ndim > 1 or len(names) > _MOST:
        raise InvalidConfig(
            f"evaluate.sensitive: {column!r} in {table.origin} has {len(names):,} values; groups are at most {_MOST}: "
            "add a column of bands, such as age_band, and name that"
        )
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[text] for text in texts], dtype=np.intp)


def _name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _together(parted: list[tuple[str, list[str], Classes]]) -> tuple[str, list[str], Classes]:
    texts = np.stack([members for _, _, members in parted], axis=1)
    kinds, place = np.unique(texts, axis=0, return_inverse=True)
    names = [
        " × ".join(names[number] for (_, names, _), number in zip(parted, kind, strict=True)) for kind in kinds.tolist()
    ]
    return " × ".join(name for name, _, _ in parted), names, place.reshape(-1)


def _of_column(
    column: str,
    names: list[str],
    members: Classes,
    rates: list[Rates],
    rows: Classified | Regressed,
    settings: EvaluationSettings,
) -> Fairness:
    counts = np.bincount(members, minlength=len(names)).tolist()
    found: list[GroupRate] = []
    gaps: list[GroupGap] = []
    known = [_known(each, members, len(names), rows, settings) for each in rates]
    for each in known:
        found += _by_group(each, names, members, rows, settings)
        gaps.append(_gap(each, settings.confidence))
    if len(known) > 2:
        gaps += _odds(known, settings.confidence)
    small = tuple(name for name, count in zip(names, counts, strict=True) if count < FEWEST)
    return Fairness(column, dict(zip(names, counts, strict=True)), tuple(found), tuple(gaps), small)


def _by_group(
    known: _Known, names: list[str], members: Classes, rows: Scored, settings: EvaluationSettings
) -> Iterator[GroupRate]:
    rates, values = known.rates, known.values
    share = rates.metric not in ("mean error", "mean absolute error")
    tested: dict[int, float] = {}
    for number in values:
        inside = (members == number).astype(np.intp)
        held = int((rates.over & (inside == 1)).sum())
        if min(held, int(rates.over.sum()) - held) >= FEWEST:
            draws = group_draws(rates, inside, 2, settings.resamples, settings.seed, rows.groups)
            tested[number] = draws_p_value(draws[:, 1] - draws[:, 0])
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    for number, name in enumerate(names):
        chosen = rates.over & (members == number)
        if number not in values:
            yield GroupRate(name, rates.metric, 0, None)
            continue
        clusters = None if rows.groups is None else np.unique(rows.groups[chosen], return_inverse=True)[1]
        hits = rates.hits[chosen]
        found = (
            share_estimate(hits > 0, clusters, settings.confidence)
            if share
            else mean_estimate(hits, clusters, settings.confidence)
        )
        p_value = adjusted.get(number)
        value = msgspec.structs.replace(found, value=values[number])
        differs = p_value is not None and p_value <= 1 - settings.confidence
        yield GroupRate(name, rates.metric, int(chosen.sum()), value, p_value, differs)


def _known(rates: Rates, members: Classes, size: int, rows: Scored, settings: EvaluationSettings) -> _Known:
    draws = group_draws(rates, members, size, settings.resamples, settings.seed, rows.groups)
    return _Known(rates, by_group(rates, members), draws)


def _gap(known: _Known, confidence: float) -> GroupGap:
    values, draws = known.values, known.draws
    difference = _valued(largest_difference(values, [draws], confidence), _range(values))
    ratio = None
    if known.rates.metric.endswith("rate") and len(values) > 1:
        least, most = min(values.values()), max(values.values())
        ratio = _valued(least_ratio(values, draws, confidence), least / most if most else 1.0)
    return GroupGap(known.rates.metric, difference, ratio)


def _odds(known: list[_Known], confidence: float) -> list[GroupGap]:
    """Demographic parity, of selection; equalized odds, of the true or the false positive rate, whichever differs more."""
    _, selection, *odds = known
    found = []
    for name, parts in (("demographic parity", [selection]), ("equalized odds", odds)):
        common = {group: 0.0 for group in parts[0].values if all(group in each.values for each in parts)}
        difference = largest_difference(common, [each.draws for each in parts], confidence)
        found.append(GroupGap(name, _valued(difference, max(_range(each.values) for each in parts)), None))
    return found


def _range(values: dict[int, float]) -> float:
    return max(values.values()) - min(values.values()) if values else 0.0


def _valued(found: Estimate, value: float) -> Estimate:
    """The interval around fairlearn's value, which it holds."""
    if found.low is None or found.high is None:
        return Estimate(value)
    return Estimate(value, min(found.low, value), max(found.high, value))
