"""Whether a model is better than another on the same rows: per metric and slice, with a test, and how many rows would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from fairway.core.mapping import THREADS, Mapper
from fairway.core.metrics import Measurement, described
from fairway.evaluation.difference import Difference, differences
from fairway.evaluation.settings import EvaluationSettings

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Scored

_HOPELESS = 1000.0
"""Beyond a thousand times the rows, saying how many would be enough helps nobody."""


class Answer(StrEnum):
    """Of a comparison."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


class Comparison(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the candidate is better than the champion by one metric.

    Attributes
    ----------
    metric : str
    answer : Answer
        "Better" or "worse" where ``adjusted`` is at most 1 less the confidence.
    slice : str
        Empty is all rows.
    p_value : float or None
        Two-sided, of "both are equal"; ``None`` where it cannot be tested.
    adjusted : float or None
        The same, corrected for the number of slices that were tested by this metric (Holm). Over all rows there is no
        correction, and none over metrics.
    test : str
    n : int
        Rows.
    detectable : float or None
        The true difference that as many rows find with the stated power.
    more_rows : int or None
        How many further rows would find a true difference as large as the measured one, with the stated power; only where
        the answer is "cannot tell", and not beyond a thousand times the rows.
    """

    metric: str
    answer: Answer
    slice: str = ""
    p_value: float | None = None
    adjusted: float | None = None
    test: str = ""
    n: int = 0
    detectable: float | None = None
    more_rows: int | None = None


def compare(
    rows: Scored,
    champion: Scored,
    names: Sequence[str],
    settings: EvaluationSettings,
    *,
    versus: str,
    slices: Sequence[tuple[str, Scored, Scored]] = (),
    slice_names: Sequence[str] = (),
    mapper: Mapper = THREADS,
) -> tuple[list[Measurement], tuple[Comparison, ...]]:
    """Compare two models over all rows by ``names``, and in every slice by ``slice_names``.

    Parameters
    ----------
    slices : sequence of (name, rows of the candidate, rows of the champion)
    mapper : Mapper
        What draws.

    Returns
    -------
    tuple of measurements and comparisons
        In the same order: of all rows, then slice by slice.
    """
    found = differences(rows, champion, names, settings, versus=versus, mapper=mapper)
    inside = [
        each
        for part, ours, theirs in slices
        for each in differences(ours, theirs, slice_names, settings, versus=versus, part=part, mapper=mapper)
    ]
    compared = [_judged(each, each.p_value, 1, settings) for each in found]
    family = {name: [each for each in inside if each.measurement.metric == name] for name in slice_names}
    adjusted = {name: holm([each.p_value for each in family[name]]) for name in slice_names}
    for each in inside:
        name = each.measurement.metric
        tested = sum(one.p_value is not None for one in family[name])
        place = next(place for place, one in enumerate(family[name]) if one is each)
        compared.append(_judged(each, adjusted[name][place], tested, settings))
    return [each.measurement for each in (*found, *inside)], tuple(compared)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number: by chance alone, any of them falls below a level at most as often as it says.

    ``None``, which was not tested, stays so and does not count.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2), 1979.

    Examples
    --------
    >>> holm([0.04, 0.01, None])
    [0.04, 0.02, None]
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[place] = largest
    return adjusted


def detectable_difference(error: float, alpha: float, power: float) -> float:
    """The true difference that a two-sided test at level ``alpha`` finds with probability ``power``, in the metric's unit.

    By the normal approximation, for a difference whose standard error is ``error``.

    Examples
    --------
    >>> round(detectable_difference(0.01, 0.05, 0.8), 4)
    0.028
    """
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2) + norm.ppf(power)) * error


def rows_needed(rows: int, difference: float, error: float, alpha: float, power: float) -> int | None:
    """How many rows in all would find ``difference`` with probability ``power``; ``None`` beyond a thousand times ``rows``.

    Assumes that the true difference is this one, and that further rows (or groups) are drawn as these were: the standard
    error then falls with the square root of their number.

    Examples
    --------
    >>> rows_needed(400, 0.02, 0.01, 0.05, 0.8)
    785
    """
    times = detectable_difference(error, alpha, power) / abs(difference) if difference else math.inf
    return math.ceil(rows * times**2) if times**2 <= _HOPELESS else None


def _judged(each: Difference, adjusted: float | None, tested: int, settings: EvaluationSettings) -> Comparison:
    found = each.measurement
    if each.p_value is None or adjusted is None:
        return Comparison(found.metric, Answer.CANNOT_TELL, found.slice, n=found.n)
    alpha = 1 - settings.confidence
    gain = found.value if described(found.metric).higher_is_better else -found.value
    answer = Answer.CANNOT_TELL
    if adjusted <= alpha and gain:
        answer = Answer.BETTER if gain > 0 else Answer.WORSE
    level = alpha / max(tested, 1)
    needed = None
    if answer is Answer.CANNOT_TELL:
        needed = rows_needed(found.n, found.value, each.error, level, settings.power)
    return Comparison(
        found.metric,
        answer,
        found.slice,
        p_value=each.p_value,
        adjusted=adjusted,
        test=each.test,
        n=found.n,
        detectable=detectable_difference(each.error, level, settings.power),
        more_rows=None if needed is None else max(1, needed - found.n),
    )
