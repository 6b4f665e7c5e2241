"""How numbers, intervals and bounds are written, in text and HTML alike."""

from __future__ import annotations

from collections.abc import Sequence

from fairway.core.gate import Finding, Limit, Outcome, Verdict
from fairway.core.metrics import METRICS, Measurement
from fairway.evaluation.comparison import Answer, Comparison
from fairway.evaluation.estimates import Estimate
from fairway.evaluation.report import Report

_SIGNS = {"min": "≥", "slice_min": "≥", "max": "≤", "slice_max": "≤", "max_drop": "≥ -", "max_rise": "≤ +"}
_WORST = (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED)


def number(value: float, *, signed: bool = False) -> str:
    """Four significant digits, thousands grouped.

    Examples
    --------
    >>> number(0.96889), number(12345.6), number(float("inf")), number(0.01, signed=True), number(0.0)
    ('0.9689', '12,346', '∞', '+0.01', '0')
    """
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1000:
        return f"{value:+,.0f}" if signed else f"{value:,.0f}"
    return f"{value:+.4g}" if signed and value else f"{value:.4g}"


def estimate(found: Measurement) -> str:
    """The value, or a dash where nothing is known."""
    if not found.has_value:
        return "—"
    return number(found.value, signed=bool(found.versus))


def interval(found: Measurement) -> str:
    """``[low, high]``; ``exact``, ``error`` or ``unknown``."""
    if found.error:
        return "error"
    if not found.known:
        return "unknown"
    if found.confidence == 1:
        return "exact"
    signed = bool(found.versus)
    mark = "≈ " if approximate(found) else ""
    return f"{mark}[{number(found.low, signed=signed)}, {number(found.high, signed=signed)}]"


def ranged(found: Estimate | None, *, signed: bool = False) -> str:
    """A value and its interval, three digits each; without an interval, the value alone.

    Examples
    --------
    >>> ranged(Estimate(0.5, 0.41234, 0.6)), ranged(Estimate(0.5)), ranged(None)
    ('0.5 [0.412, 0.6]', '0.5', '—')
    """
    if found is None:
        return "—"
    value = _short(found.value, signed=signed)
    if found.low is None or found.high is None:
        return value
    return f"{value} [{_short(found.low, signed=signed)}, {_short(found.high, signed=signed)}]"


def change(report: Report, compared: Comparison) -> str:
    """The measured difference that an answer is about."""
    found = report.measurement(compared.metric, part=compared.slice, versus=True)
    return "—" if found is None else estimate(found)


def is_quality(found: Measurement) -> bool:
    """Whether it tells how good the answers are, rather than what they cost."""
    known = METRICS.get(found.metric)
    return known is None or bool(known.tasks)


def approximate(found: Measurement) -> str:
    """Why an interval may miss more often than it says; empty if it should not."""
    return found.method.partition("approximate: ")[2] if found.known else ""


def doubts(measurements: Sequence[Measurement]) -> list[str]:
    """For which measurements intervals are only approximate, one line per reason."""
    names: dict[str, list[str]] = {}
    for found in measurements:
        if reason := approximate(found):
            change = "change of " if found.versus else ""
            where = f" in {found.slice}" if found.slice else ""
            names.setdefault(reason, []).append(f"{change}{found.metric}{where}")
    return [f"{', '.join(named)}: {reason}" for reason, named in names.items()]


def p_value(p: float | None) -> str:
    """A p-value with two digits.

    Examples
    --------
    >>> p_value(0.0314), p_value(0.00001), p_value(None), p_value(1.0)
    ('0.031', '< 0.001', '—', '1')
    """
    if p is None:
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def tells(compared: Comparison) -> str:
    """How many more rows would tell, or what these rows could have told."""
    if compared.more_rows is not None:
        return f"{compared.more_rows:,} more"
    if compared.answer is Answer.CANNOT_TELL:
        return "—" if compared.p_value is None else "far more"
    return ""


def reach(compared: Comparison) -> str:
    """The least difference that these rows find with the stated power."""
    return "—" if compared.detectable is None else f"±{number(compared.detectable)}"


def sampling(report: Report) -> str:
    """What intervals and tests rest on."""
    settings = report.settings
    units = f", over {report.groups:,} groups by {settings.group}" if settings.group else ""
    units = ", rows per class kept" if settings.stratified else units
    return f"{settings.resamples:,} resamples, seed {settings.seed}{units}"


def comparison_note(report: Report) -> str:
    """What the answers rest on."""
    settings = report.settings
    slices = len({each.slice for each in report.comparisons if each.slice})
    corrected = f" Within slices, p is corrected for the {slices} slices of a metric (Holm)." if slices > 1 else ""
    return (
        f"Better or worse: the p-value of no difference is at most {number(1 - settings.confidence)}.{corrected} Metrics are "
        f"not corrected for each other. Finds: the true difference that these rows find in {percent(settings.power)} of "
        f"such tests. More rows: would find, in {percent(settings.power)}, a true difference as large as the measured one, "
        f"if they are drawn as these were."
    )


def bound(finding: Finding) -> str:
    """A limit as a relation, such as ``≥ 0.95``."""
    sign = _SIGNS[finding.bound]
    return f"{sign}{number(finding.limit)}" if sign[-1] in "+-" else f"{sign} {number(finding.limit)}"


def bounds(findings: Sequence[Finding]) -> str:
    """All limits on one measurement."""
    return ", ".join(map(bound, findings))


def outcome(findings: Sequence[Finding]) -> str:
    """The worst outcome, in a word; empty without findings."""
    found = {finding.outcome for finding in findings}
    return next((str(one) for one in _WORST if one in found), "")


def findings_on(report: Report, found: Measurement) -> tuple[Finding, ...]:
    """Those that rest on this measurement."""
    return tuple(finding for finding in report.verdict.findings if finding.measurement == found)


def error_rates(verdict: Verdict) -> str:
    """How often such a verdict would be wrong, in words."""
    if not verdict.findings:
        return "the gate sets no limit, so there is nothing to judge"
    return (
        f"a wrong pass happens in at most about {percent(verdict.false_pass)} of such evaluations, "
        f"a wrong failure in at most about {percent(verdict.false_fail)}"
    )


def percent(share: float) -> str:
    """A share as a percentage.

    Examples
    --------
    >>> percent(0.025), percent(1.0), percent(0.0)
    ('2.5 %', '100 %', '0 %')
    """
    return f"{100 * share:.3g} %"


def explained(limit: Limit) -> str:
    """All that a limit sets, for a list of limits."""
    return ", ".join(
        f"{name} {number(value)}" for name in limit.__struct_fields__ if (value := getattr(limit, name)) is not None
    )


def _short(value: float, *, signed: bool) -> str:
    rounded = float(f"{value:.3g}")
    return number(rounded, signed=signed)
