"""The one gate: limits over named metrics, and the one function that judges measurements by them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from fairway.core.errors import InvalidConfig
from fairway.core.metrics import Measurement, difference, metric


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one metric must keep. All bounds are inclusive and in the metric's unit.

    Attributes
    ----------
    min, max : float
        For the metric over all rows.
    slice_min, slice_max : float
        For the metric in every slice.
    max_drop : float
        How much a ``*_score`` may lose against the champion.
    max_rise : float
        How much an error, a loss or a cost may gain against the champion.
    at_rps : float
        The load, in requests per second, at which latency and throughput are measured.
    """

    min: float | None = None
    max: float | None = None
    slice_min: float | None = None
    slice_max: float | None = None
    max_drop: float | None = None
    max_rise: float | None = None
    at_rps: float | None = None


Gate: TypeAlias = Mapping[str, Limit]


class Outcome(StrEnum):
    """Of a finding or a verdict. Without enough evidence it is ``inconclusive``, never ``passed``."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    NOT_APPLICABLE = "not applicable"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one bound fared: the reason in words, and the measurement it rests on."""

    metric: str
    bound: str
    limit: float
    outcome: Outcome
    reason: str
    slice: str = ""
    measurement: Measurement | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What the gate says, why, and how often it would be wrong.

    Attributes
    ----------
    outcome : Outcome
    findings : tuple of Finding
    false_pass : float
        Upper bound on the probability of ``passed`` when some applicable limit is in truth broken. A pass needs every
        bound to hold, so this is the largest one-sided error of any interval, whatever the number of bounds.
    false_fail : float
        Upper bound on the probability of ``failed`` when every limit in truth holds. One interval on the wrong side
        is enough to fail, so this is the sum of the one-sided errors.

    Notes
    -----
    Both bounds are as good as the intervals' stated coverage: exact where a measurement's ``method`` is exact, and to the
    accuracy of the approximation where it is not. They hold for one look at the data, unless the intervals are
    confidence sequences.
    """

    outcome: Outcome
    findings: tuple[Finding, ...]
    false_pass: float
    false_fail: float

    @property
    def passed(self) -> bool:
        """Whether the outcome is ``passed``."""
        return self.outcome is Outcome.PASSED

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons that decided the outcome."""
        return tuple(f.reason for f in self.findings if f.outcome is self.outcome) or ("nothing to judge",)


def check_gate(gate: Gate) -> None:
    """Raise :class:`InvalidConfig` where a limit names no metric, or a bound that its metric cannot have."""
    for name, limit in gate.items():
        up = metric(name).higher_is_better
        wrong = ("max_rise", "slice_max") if up else ("max_drop", "slice_min")
        better, pairs = ("higher", "max_drop, slice_min") if up else ("lower", "max_rise, slice_max")
        for bound in wrong:
            if getattr(limit, bound) is not None:
                raise InvalidConfig(f"gate.{name}: {bound} has no meaning where {better} is better; use {pairs}")
        _check_numbers(name, limit)


def _check_numbers(name: str, limit: Limit) -> None:
    bounds = {b: getattr(limit, b) for b in _BOUNDS if getattr(limit, b) is not None}
    if not bounds:
        raise InvalidConfig(f"gate.{name} sets no bound; set one of {', '.join(_BOUNDS)}")
    for bound, value in bounds.items():
        if not math.isfinite(value):
            raise InvalidConfig(f"gate.{name}: {bound} is {value}; a bound is a finite number: leave it out for none")
        if bound in ("max_drop", "max_rise") and value < 0:
            raise InvalidConfig(f"gate.{name}: {bound} is {value}; a change is written as a number of 0 or more")
    if limit.min is not None and limit.max is not None and limit.min > limit.max:
        raise InvalidConfig(f"gate.{name}: min {limit.min} is above max {limit.max}; nothing can be both")
    if limit.at_rps is not None and not (limit.at_rps > 0 and math.isfinite(limit.at_rps)):
        raise InvalidConfig(f"gate.{name}: at_rps is {limit.at_rps}; a load is above 0 requests per second")
    if limit.at_rps is not None and metric(name).tasks:
        raise InvalidConfig(f"gate.{name}: at_rps has no meaning here, since load does not change it; leave it out")


def judge(gate: Gate, measurements: Iterable[Measurement], champion: Iterable[Measurement] | None = None) -> Verdict:
    """Judge ``measurements`` by ``gate``. Pure: the same arguments give the same verdict.

    A bound holds when the whole interval is on its good side, is broken when the whole interval is on its bad side,
    and is inconclusive in between or without a measurement.

    Parameters
    ----------
    gate : mapping of metric name to Limit
    measurements : iterable of Measurement
        Of the candidate. Those with ``versus`` set are paired differences to the champion, and are preferred for
        ``max_drop`` and ``max_rise``; otherwise the difference is made from both sides' intervals.
    champion : iterable of Measurement, or None
        Of the champion. ``None`` when there is none: bounds on change then do not apply.

    Raises
    ------
    InvalidConfig
        If the gate is malformed (see :func:`check_gate`).

    References
    ----------
    R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24(4), 1982: the
    intersection-union principle behind ``false_pass``.

    Examples
    --------
    >>> gate = {"accuracy_score": Limit(min=0.95)}
    >>> judge(gate, [Measurement("accuracy_score", 0.97, 0.955, 0.98, n=900)]).outcome
    <Outcome.PASSED: 'passed'>
    >>> judge(gate, []).outcome
    <Outcome.INCONCLUSIVE: 'inconclusive'>
    """
    check_gate(gate)
    measured = tuple(measurements)
    incumbent = None if champion is None else tuple(champion)
    findings: list[Finding] = []
    for name, limit in gate.items():
        findings += _absolute(name, limit, measured)
        findings += _in_slices(name, limit, measured)
        findings += _against_champion(name, limit, measured, incumbent)
    return _verdict(tuple(findings))


def join_verdicts(*verdicts: Verdict) -> Verdict:
    """All findings as one verdict: passed only if nothing failed, in error or inconclusive is among them.

    Examples
    --------
    >>> one = judge({"accuracy_score": Limit(min=0.95)}, [Measurement("accuracy_score", 0.97, 0.955, 0.98)])
    >>> other = judge({"error_rate": Limit(max=0.01)}, [Measurement("error_rate", 0.5, 0.4, 0.6)])
    >>> join_verdicts(one, other).outcome
    <Outcome.FAILED: 'failed'>
    """
    return _verdict(tuple(finding for verdict in verdicts for finding in verdict.findings))


_BOUNDS = ("min", "max", "slice_min", "slice_max", "max_drop", "max_rise")
_ORDER = (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED)


def _verdict(findings: tuple[Finding, ...]) -> Verdict:
    outcomes = {f.outcome for f in findings}
    outcome = next((o for o in _ORDER if o in outcomes), Outcome.INCONCLUSIVE)
    tails = [(1 - f.measurement.confidence) / 2 for f in findings if f.measurement is not None and f.measurement.known]
    return Verdict(outcome, findings, max(tails, default=0.0), min(1.0, sum(tails)))


def _absolute(name: str, limit: Limit, measured: tuple[Measurement, ...]) -> list[Finding]:
    found = _find(name, "", limit, measured)
    bounds: list[tuple[str, float | None]] = [("min", limit.min), ("max", limit.max)]
    return [_compare(name, bound, value, found) for bound, value in bounds if value is not None]


def _in_slices(name: str, limit: Limit, measured: tuple[Measurement, ...]) -> list[Finding]:
    bound, value = ("slice_min", limit.slice_min) if limit.slice_min is not None else ("slice_max", limit.slice_max)
    if value is None:
        return []
    slices = dict.fromkeys(m.slice for m in measured if m.slice)  # of any metric: one without this metric is no pass
    if not slices:
        reason = f"{name}: no slice was measured; declare [[slices]] or drop {bound}"
        return [Finding(name, bound, value, Outcome.INCONCLUSIVE, reason)]
    return [_compare(name, bound, value, _find(name, part, limit, measured), part) for part in slices]


def _against_champion(
    name: str, limit: Limit, measured: tuple[Measurement, ...], champion: tuple[Measurement, ...] | None
) -> list[Finding]:
    bound, value = ("max_drop", limit.max_drop) if limit.max_drop is not None else ("max_rise", limit.max_rise)
    if value is None:
        return []
    paired = _find(name, "", limit, measured, versus=True)
    if paired is None and champion is None:
        reason = f"{name}: no champion to compare with"
        return [Finding(name, bound, value, Outcome.NOT_APPLICABLE, reason)]
    if paired is None:
        ours, theirs = _find(name, "", limit, measured), _find(name, "", limit, champion or ())
        useless = [m for m in (ours, theirs) if m is not None and not m.known]
        useless.sort(key=lambda m: not m.error)
        paired = useless[0] if useless else difference(ours, theirs, "champion") if ours and theirs else None
    return [_compare(name, bound, value, paired)]


def _find(
    name: str, part: str, limit: Limit, measured: tuple[Measurement, ...], *, versus: bool = False
) -> Measurement | None:
    """Live traffic has its own load (``at_rps`` None) and counts for any limit; a test at another load does not."""
    found = [m for m in measured if m.metric == name and m.slice == part and bool(m.versus) == versus]
    if limit.at_rps is not None:
        found = [m for m in found if m.at_rps == limit.at_rps] or [m for m in found if m.at_rps is None]
    return found[0] if found else None


def _compare(name: str, bound: str, limit: float, found: Measurement | None, part: str = "") -> Finding:
    where = f"{name} in slice {part!r}" if part else name
    if found is None:
        return Finding(name, bound, limit, Outcome.INCONCLUSIVE, f"{where}: no measurement", part)
    if found.error:
        return Finding(name, bound, limit, Outcome.ERROR, f"{where}: {found.error}", part, found)
    if not found.known:
        reason = f"{where}: {found.method or 'nothing is known of it'}"
        return Finding(name, bound, limit, Outcome.INCONCLUSIVE, reason, part, found)
    floor = bound in ("min", "slice_min", "max_drop")
    threshold = -limit if bound == "max_drop" else limit
    holds, broken = (
        (found.low >= threshold, found.high < threshold) if floor else (found.high <= threshold, found.low > threshold)
    )
    what = (
        f"change of {where} is {found.value:+.4g}"
        if bound in ("max_drop", "max_rise")
        else f"{where} is {found.value:.4g}"
    )
    interval = "" if found.confidence == 1 else f" [{found.low:.4g}, {found.high:.4g}]"
    shown = f"{what}{interval}, {bound} {limit:.4g}"
    outcome = Outcome.PASSED if holds else Outcome.FAILED if broken else Outcome.INCONCLUSIVE
    hint = _needed(found, threshold) if outcome is Outcome.INCONCLUSIVE else ""
    return Finding(name, bound, limit, outcome, shown + hint, part, found)


def _needed(found: Measurement, threshold: float) -> str:
    """An interval narrows with the square root of the count: how many would bring the limit outside it."""
    margin = abs(found.value - threshold)
    width = found.value - found.low if found.value > threshold else found.high - found.value
    if not found.n or not margin or not width / margin < _HOPELESS:
        return ""
    return f"; about {math.ceil(found.n * (width / margin) ** 2):,} observations would tell (now {found.n:,})"


_HOPELESS = 1000.0
"""Beyond a million times the data, saying how much would be enough helps nobody."""
