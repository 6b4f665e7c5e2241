"""How numbers, intervals and bounds are written, in text and HTML alike."""

from __future__ import annotations

from collections.abc import Sequence

from fairway.core.gate import Finding, Limit, Outcome, Verdict
from fairway.core.metrics import Measurement
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
    if found.error or (not found.known and not _has_value(found)):
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
    return f"[{number(found.low, signed=signed)}, {number(found.high, signed=signed)}]"


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
        f"a wrong pass happens in at most {percent(verdict.false_pass)} of such evaluations, "
        f"a wrong failure in at most {percent(verdict.false_fail)}"
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


def _has_value(found: Measurement) -> bool:
    """A value whose interval could not be made is still a value; without data there is none."""
    return found.method.startswith("no interval")
