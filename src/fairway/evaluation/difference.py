"""The difference of two models' metric on the same rows: its interval, a test, its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np

from fairway.core.mapping import THREADS, Mapper
from fairway.core.metrics import Measurement
from fairway.evaluation import certainty, roc
from fairway.evaluation import measure as own
from fairway.evaluation.certainty import Found
from fairway.evaluation.influence import LINEAR, influence, spread, terms
from fairway.evaluation.intervals import (
    MATCHED,
    draws_interval,
    draws_p_value,
    matched_interval,
    skewed_interval,
    skewed_p_value,
)
from fairway.evaluation.metrics import values
from fairway.evaluation.predictions import Classified, Floats, Mask, Regressed, Scored
from fairway.evaluation.settings import EvaluationSettings
from fairway.evaluation.tallied import Tallied

DELONG = "DeLong"
_FEW_DISCORDANT = 25


class Difference(NamedTuple):
    """Candidate minus champion.

    Attributes
    ----------
    measurement : Measurement
    p_value : float or None
        Two-sided, of "the models are equal by this metric"; ``None`` where that cannot be tested.
    error : float
        The difference's standard error.
    test : str
    """

    measurement: Measurement
    p_value: float | None
    error: float
    test: str


def measure_difference(
    rows: Scored, champion: Scored, names: Sequence[str], settings: EvaluationSettings, *, versus: str, part: str = ""
) -> list[Measurement]:
    """Measure candidate minus champion on the same rows."""
    return [each.measurement for each in differences(rows, champion, names, settings, versus=versus, part=part)]


def differences(
    rows: Scored,
    champion: Scored,
    names: Sequence[str],
    settings: EvaluationSettings,
    *,
    versus: str,
    part: str = "",
    mapper: Mapper = THREADS,
) -> list[Difference]:
    """Measure and test candidate minus champion on the same rows. ``mapper`` draws."""
    usable, unusable = own.sort_out(names, [rows, champion], settings, part, versus)
    found = {name: Difference(each, None, 0.0, "") for name, each in unusable.items()}
    drawn = [name for name in usable if name not in LINEAR and not isinstance(rows, Tallied)]
    ours, theirs = own.draw([rows, champion], drawn, settings, mapper)
    for name, mine, other in zip(usable, values(usable, rows), values(usable, champion), strict=True):
        estimate = mine - other
        if isinstance(rows, Tallied):
            made = _tallied(name, rows, cast(Tallied, champion), settings)
        elif name == "accuracy_score" and rows.groups is None:
            made = _matched(rows.right(), champion.right(), settings)
        elif name in LINEAR:
            made = _linear(name, estimate, rows, champion, settings)
        else:
            made = _drawn(ours[name] - theirs[name], rows, settings)
        low, high = made.ends or (-math.inf, math.inf)
        measurement = Measurement(
            name,
            estimate,
            low,
            high,
            confidence=settings.confidence,
            n=own.count(rows),
            slice=part,
            versus=versus,
            method=made.method if made.ends else own.too_little(rows, "difference"),
        )
        found[name] = Difference(measurement, made.p_value if made.ends else None, made.error, made.test)
    return [found[name] for name in names]


def mcnemar(gained: int, lost: int) -> tuple[float, str]:
    """The two-sided p-value of "each model is right alone equally often", and how it was made.

    Exact with fewer than 25 rows on which only one model is right; beyond, the mid-p value, which is less cautious and
    still was never seen to reject too often.

    References
    ----------
    M. W. Fagerland, S. Lydersen, P. Laake, "The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional", BMC Medical Research Methodology 13:91, 2013, doi:10.1186/1471-2288-13-91.

    Examples
    --------
    >>> mcnemar(9, 1)
    (0.021484375, 'McNemar, exact')
    """
    from scipy.stats import binom, binomtest

    pairs = gained + lost
    if pairs == 0:
        return 1.0, "McNemar, exact"
    exact = float(binomtest(gained, pairs).pvalue)
    if pairs < _FEW_DISCORDANT:
        return exact, "McNemar, exact"
    return max(0.0, min(1.0, exact - float(binom.pmf(gained, pairs, 0.5)))), "McNemar, mid-p"


def _tallied(name: str, rows: Tallied, champion: Tallied, settings: EvaluationSettings) -> Found:
    if certainty.is_share(rows.forms[name]) and rows.groups is None:
        return _matched(certainty.hits(name, rows), certainty.hits(name, champion), settings)
    return certainty.difference(name, rows, champion, settings)


def _matched(ours: Mask, theirs: Mask, settings: EvaluationSettings) -> Found:
    gained, lost = int(np.sum(ours & ~theirs)), int(np.sum(~ours & theirs))
    p_value, test = mcnemar(gained, lost)
    n = len(ours)
    b, c = gained + 0.5, lost + 0.5
    error = math.sqrt(b + c - (b - c) ** 2 / (n + 2)) / (n + 2)
    return Found(matched_interval(gained, lost, n, settings.confidence), MATCHED, p_value, error, test)


def _linear(name: str, estimate: float, rows: Scored, champion: Scored, settings: EvaluationSettings) -> Found:
    slopes = influence(name, rows) - influence(name, champion)
    over = spread(slopes, rows.groups, own.strata(rows, settings), floor=_unseen(name, rows, champion))
    if name == "roc_auc_score" and rows.groups is None:
        over = over._replace(freedom=roc.freedom(slopes, cast(Classified, rows).truth))
    # Of equal models the difference is symmetric: to follow the skewness of a sample would raise false alarms.
    over = over._replace(skewness=0.0)
    ends = skewed_interval(estimate, over, settings.confidence)
    groups = " of groups" if rows.groups is not None else ""
    method = test = (DELONG if name == "roc_auc_score" else "paired t") + groups
    doubt = own.few_groups(rows)
    if name not in ("roc_auc_score", "accuracy_score"):
        doubt = doubt or own.dominated(name, [rows, champion])
    return Found(ends, method + doubt, skewed_p_value(estimate, over), over.error, test)


def _unseen(name: str, rows: Scored, champion: Scored) -> float:
    """How far a row may part the models that parted nowhere: two models that never differ are not equal for certain."""
    if name in ("accuracy_score", "roc_auc_score"):
        return 1.0
    typical = float(np.mean([terms(name, rows).mean(), terms(name, champion).mean()]))
    if name == "root_mean_squared_error":
        return math.sqrt(typical) / 2
    if name == "r2_score":
        variance = float(cast(Regressed, rows).truth.var())
        return typical / variance if variance else 0.0
    return typical


def _drawn(moved: Floats, rows: Scored, settings: EvaluationSettings) -> Found:
    expand = own.expansion(rows)
    ends = draws_interval(moved, settings.confidence, rows=expand)
    p_value = draws_p_value(moved, rows=expand)
    method = f"paired {own.bootstrap_method(rows, settings)}"
    return Found(ends, method, p_value, float(moved.std()), "paired bootstrap")
