"""Declared checks: the answer to a changed row must stay, not fall or not rise.

References
----------
M. T. Ribeiro, T. Wu, C. Guestrin, S. Singh, "Beyond accuracy: behavioral testing of NLP models with CheckList", ACL 2020,
arXiv:2005.04118: invariance and directional expectation tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.core.errors import FairwayError, InvalidConfig
from fairway.core.gate import Limit, Verdict, join_verdicts, judge
from fairway.core.metrics import Measurement
from fairway.evaluation.influence import spread
from fairway.evaluation.intervals import grouped_proportion_interval, proportion_interval, proportion_method
from fairway.evaluation.perturbations.answers import is_scored, scored
from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.settings import ChangeSettings, CheckSettings

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.predictions import Floats, Mask, Scored
    from fairway.sources.tables import Table

METRIC = "check_failure_rate"
_ROWS = 10_000
_ROUNDING = 1e-6
_SHOWN = 5


class CheckReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a check fared.

    Attributes
    ----------
    name, kind : str
    about : str
        The change, in words.
    failure_rate : Measurement
        Its ``n`` is the number of rows that the change changes; others say nothing.
    limit : float or None
    examples : tuple of int
        Rows of the data, from 0, that fail worst.
    """

    name: str
    kind: str
    about: str
    failure_rate: Measurement
    limit: float | None = None
    examples: tuple[int, ...] = ()


def analyse(subject: Subject) -> tuple[CheckReport, ...] | None:
    """Run every declared check on up to 10,000 of the rows that it is about; ``None`` if none is declared.

    Raises
    ------
    InvalidConfig
        If a check names no column that the model sees, or makes no sense for this task.
    """
    if not subject.checks:
        return None
    names = [each.name for each in subject.checks]
    if double := next((name for name in names if names.count(name) > 1), ""):
        raise InvalidConfig(f"two checks are called {double!r}; give each its own name")
    return tuple(_run(subject, check) for check in subject.checks)


def judge_checks(found: Sequence[CheckReport]) -> Verdict:
    """The limits of checks as the gate judges them, each check as a slice of its own."""
    return join_verdicts(
        *(judge({METRIC: Limit(slice_max=each.limit)}, [each.failure_rate]) for each in found if each.limit is not None)
    )


def _run(subject: Subject, check: CheckSettings) -> CheckReport:
    if not is_scored(subject.rows):
        raise InvalidConfig(f"check {check.name!r}: checks are for classification and regression")
    chosen = _chosen(subject, check)
    fields = {"slice": check.name, "confidence": subject.settings.confidence}
    about = described(check.change) + (f" where {check.where}" if check.where else "")
    report = CheckReport(check.name, check.kind, about, Measurement.unknown(METRIC, "no row to change", **fields))
    report = msgspec.structs.replace(report, limit=check.max_failure_rate)
    if not len(chosen):
        return report
    table = subject.table.select(chosen)
    before, after = (
        part.feed(subject.model.inputs, label=subject.label) for part in (table, changed(table, check.change))
    )
    moved = np.zeros(len(chosen), dtype=bool)
    for name in before:
        moved |= _differs(before[name], after[name])
    if not moved.any():
        return report
    rows, numbers = subject.rows.select(chosen[moved]), chosen[moved]
    try:
        answers = scored(
            subject.model, {name: array[moved] for name, array in after.items()}, rows, subject.settings.batch_size
        )
    except FairwayError as error:
        return msgspec.structs.replace(report, failure_rate=Measurement.failed(METRIC, str(error), **fields))
    excess = _excess(check, rows, answers)
    failed = excess > check.tolerance + _ROUNDING
    rate = float(failed.mean())
    low, high, method = _interval(failed, rows, subject.settings.confidence)
    measured = Measurement(METRIC, rate, low, high, n=len(rows), method=method, **fields)  # type: ignore[arg-type]
    worst = np.argsort(-excess, kind="stable")[: min(_SHOWN, int(failed.sum()))]
    return msgspec.structs.replace(
        report, failure_rate=measured, examples=tuple(int(numbers[place]) for place in worst)
    )


def changed(table: Table, change: ChangeSettings) -> Table:
    """The table with one column changed; missing values stay missing unless they are set.

    Raises
    ------
    InvalidConfig
        If there is no such column, or it holds nothing that can be changed so.
    """
    if change.column not in table.columns:
        raise InvalidConfig(
            f"a check changes {change.column!r}, which is no column; they are: {', '.join(table.columns)}"
        )
    values = table.column(change.column)
    if change.set is not None:
        numeric = values.dtype.kind in "iufb" and not isinstance(change.set, str)
        made: Tensor = np.full(values.shape, change.set, dtype=None if numeric else object)
    elif change.replace is not None:
        made = _replaced(values, change)
    else:
        if values.dtype.kind not in "iuf":
            raise InvalidConfig(f"a check changes {change.column!r} by a number, but it holds none; use set or replace")
        made = values + change.add if change.add is not None else values * (change.multiply or 0.0)
    return table.with_column(change.column, made)


def described(change: ChangeSettings) -> str:
    """A change in words.

    Examples
    --------
    >>> described(ChangeSettings("age", add=5)), described(ChangeSettings("text", replace={"he": "she"}))
    ('age + 5', 'text with “he” → “she”')
    """
    if change.add is not None:
        return f"{change.column} {'-' if change.add < 0 else '+'} {abs(change.add):g}"
    if change.multiply is not None:
        return f"{change.column} × {change.multiply:g}"
    if change.replace is not None:
        return f"{change.column} with {', '.join(f'“{old}” → “{new}”' for old, new in change.replace.items())}"
    return f"{change.column} set to {change.set}"


def _chosen(subject: Subject, check: CheckSettings) -> Tensor:
    try:
        inside = np.flatnonzero(subject.table.mask(check.where)) if check.where else np.arange(subject.table.rows)
    except InvalidConfig as error:
        raise InvalidConfig(f"check {check.name!r}: {error}") from None
    if len(inside) <= _ROWS:
        return inside
    return np.sort(np.random.default_rng([subject.settings.seed, 22]).choice(inside, _ROWS, replace=False))


def _replaced(values: Tensor, change: ChangeSettings) -> Tensor:
    if values.dtype != object:
        raise InvalidConfig(
            f"a check replaces texts in {change.column!r}, but it holds numbers; use add, multiply or set"
        )
    made = np.empty(len(values), dtype=object)
    for place, value in enumerate(values.tolist()):
        made[place] = value
        for old, new in (change.replace or {}).items():
            made[place] = made[place].replace(old, new) if isinstance(value, str) else value
    return made


def _differs(before: Tensor, after: Tensor) -> Mask:
    different = before != after
    if before.dtype.kind == "f":
        different = different & ~(np.isnan(before) & np.isnan(after))
    flat = np.asarray(different).reshape(len(before), -1)
    return np.asarray(flat.any(axis=1))


def _excess(check: CheckSettings, before: Scored, after: Scored) -> Floats:
    """By how much each row moves where it must not."""
    if isinstance(before, Regressed) and isinstance(after, Regressed):
        rise: Floats = after.predicted - before.predicted
        return np.abs(rise) if check.kind == "invariant" else -rise if check.kind == "increases" else rise
    assert isinstance(before, Classified)
    assert isinstance(after, Classified)
    if check.kind == "invariant":
        return np.where(before.predicted != after.predicted, np.inf, 0.0)
    if before.probabilities is None or after.probabilities is None:
        raise InvalidConfig(
            f"check {check.name!r}: {check.kind} is about probabilities, and the model answers labels only"
        )
    place = _class(check, before.labels)
    rise = after.probabilities[:, place] - before.probabilities[:, place]
    return -rise if check.kind == "increases" else rise


def _class(check: CheckSettings, labels: Sequence[str]) -> int:
    if check.of in labels:
        return labels.index(check.of)
    if not check.of and len(labels) == 2:
        return 1
    raise InvalidConfig(
        f"check {check.name!r}: {check.kind} needs the class that it is of; set 'of' to one of: {', '.join(labels)}"
    )


def _interval(failed: Mask, rows: Scored, confidence: float) -> tuple[float, float, str]:
    if rows.groups is None:
        count = int(failed.sum())
        return *proportion_interval(count, len(failed), confidence), proportion_method(count, len(failed))
    rate = float(failed.mean())
    ends = grouped_proportion_interval(
        rate, len(failed), spread(failed.astype(np.float64) - rate, rows.groups), confidence
    )
    if ends is None:
        return -np.inf, np.inf, "no interval: too few groups"
    return *ends, "of groups (Korn-Graubard)"
