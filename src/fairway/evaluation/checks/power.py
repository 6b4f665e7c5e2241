"""Whether there are rows enough for the gate, and how many it would take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fairway.core.gate import Limit
from fairway.core.metrics import Measurement, metric
from fairway.evaluation.checks.base import Check, Severity

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.checks.base import Looked

_HOPELESS = 1000.0


def power_checks(looked: Looked) -> Iterator[Check]:
    """For every limit on quality: whether these rows could settle it, in all rows and in slices."""
    subject = looked.subject
    limits = [(name, limit) for name, limit in subject.gate.items() if metric(name).tasks]
    if not limits:
        yield Check(
            "rows for the gate",
            Severity.SKIPPED,
            "Not looked for: the gate limits no quality metric.",
            "Set [gate] limits.",
        )
        return
    found = [finding for name, limit in limits for finding in _of_limit(subject, name, limit)]
    yield from found
    if not found:
        yield Check("rows for the gate", Severity.FINE, "There are rows enough to judge every limit on quality.")


def flawless_rows(minimum: float, confidence: float) -> int:
    """How many rows an accuracy of 1 needs for its exact interval to reach ``minimum``.

    Examples
    --------
    >>> flawless_rows(0.99, 0.95)
    368
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(minimum)) if 0 < minimum < 1 else 1


def rows_to_settle(found: Measurement, limit: float, power: float) -> int | None:
    """How many rows would settle ``limit`` with probability ``power``, if the measured value is the true one.

    By the normal approximation, from the width of the measured interval; ``None`` if that is beyond a thousand times the rows.

    Examples
    --------
    >>> round(rows_to_settle(Measurement("accuracy_score", 0.96, 0.94, 0.98, n=400), 0.95, 0.8), -2)
    3300
    """
    from scipy.stats import norm

    margin = abs(found.value - limit)
    above = found.value > limit
    width = found.value - found.low if above else found.high - found.value
    if not margin or not math.isfinite(width):
        return None
    reach = float(norm.ppf((1 + found.confidence) / 2))
    times = width / reach * (reach + float(norm.ppf(power))) / margin
    return math.ceil(found.n * times**2) if times**2 <= _HOPELESS else None


def _of_limit(subject: Subject, name: str, limit: Limit) -> Iterator[Check]:
    bounds = ((limit.min, limit.max, False), (limit.slice_min, limit.slice_max, True))
    for floor, ceiling, sliced in bounds:
        bound = floor if floor is not None else ceiling
        if bound is None:
            continue
        for each in subject.measurements:
            if each.metric == name and not each.versus and bool(each.slice) == sliced:
                check = _judged(subject, each, bound, floor=floor is not None)
                if check is not None:
                    yield check


def _judged(subject: Subject, found: Measurement, bound: float, *, floor: bool) -> Check | None:
    where = f"{found.metric} in {found.slice}" if found.slice else found.metric
    settings = subject.settings
    if found.metric == "accuracy_score" and floor:
        needed = flawless_rows(bound, settings.confidence)
        if found.n < needed:
            return Check(
                "rows for the gate",
                Severity.PROBLEM,
                f"{where}: {found.n:,} rows cannot show {bound:g}, not even without an error.",
                f"At least {needed:,} rows are needed, and more if there are errors.",
            )
    if found.error or not found.known:
        return None
    if found.low >= bound or found.high < bound:  # settled, either way
        return None
    needed_rows = rows_to_settle(found, bound, settings.power)
    enough = f"about {needed_rows:,}" if needed_rows else "more than a thousand times as many"
    return Check(
        "rows for the gate",
        Severity.WARNING,
        f"{where}: {found.n:,} rows do not tell {found.value:.4g} from the limit {bound:g}.",
        f"If {found.value:.4g} is the true value, {enough} rows would tell in {settings.power:.0%} of such tests.",
    )
