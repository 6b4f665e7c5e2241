"""A report as one self-contained page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fairway.core.gate import Outcome, Verdict
from fairway.core.metrics import Measurement
from fairway.evaluation import plots, words
from fairway.evaluation.diagnostics import calibration_error
from fairway.evaluation.pages import render_page
from fairway.evaluation.plots_latency import latency_figure
from fairway.evaluation.report import Report
from fairway.evaluation.tasks.registry import TASKS
from fairway.evaluation.tiles import tiles
from fairway.evaluation.views import shown

if TYPE_CHECKING:
    from markupsafe import Markup

_HEADLINES = {
    Outcome.PASSED: ("good", "✓", "Passed: every limit is kept"),
    Outcome.FAILED: ("bad", "✗", "Failed: a limit is broken"),
    Outcome.ERROR: ("bad", "!", "Error: a measurement could not be made"),
    Outcome.INCONCLUSIVE: ("warn", "?", "Inconclusive: there is too little evidence to pass or fail"),
}
_ORDER = (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED, Outcome.NOT_APPLICABLE)
_FIRST = ("data_checks", "weak_slices", "errors")
"""Analyses that come before others: what would make the rest untrue, then where the model fails."""


def render_html(report: Report) -> str:
    """The page: verdict, key numbers, limits, comparison, metrics, slices, analyses, performance, findings, provenance."""
    tone, mark, headline = _HEADLINES[report.verdict.outcome]
    whole = [m for m in report.measurements if not m.slice and not m.versus]
    quality = [m for m in whole if words.is_quality(m)]
    served = [m for m in whole if not words.is_quality(m)]
    sections = _sections(report)
    return render_page(
        f"{report.model}: {report.verdict.outcome}",
        files("fairway.evaluation").joinpath("templates/report.html").read_text("utf-8"),
        kicker="Fairway evaluation",
        summary=f"{report.task.capitalize()} on {report.rows:,} rows of {report.origin}"
        + (f", compared with {report.champion.name} on the same rows" if report.champion else ""),
        report=report,
        words=words,
        tone=tone,
        mark=mark,
        headline=headline,
        counted=_counted(report.verdict),
        tiles=tiles(report),
        row=lambda found: _row(report, found),
        bars=bars,
        limits=plots.limits_plot(report.verdict.findings),
        quality=quality,
        served=served,
        differences=[m for m in report.measurements if m.versus and not m.slice],
        compared=[(each, words.change(report, each)) for each in report.comparisons],
        doubts=words.doubts(report.measurements),
        methods=_methods(whole),
        parts_measured=[m for m in report.measurements if m.slice and not m.versus],
        slice_plots=_slice_plots(report),
        confusion=plots.confusion_plot(report.confusion) if report.confusion and report.confusion.matrix else None,
        calibration=plots.calibration_plot(report.calibration) if _simple(report) else None,
        calibration_error=calibration_error(report.calibration),
        residuals=plots.residuals_plot(report.residuals) if report.residuals else None,
        first=[each for each in sections if each[0] in _FIRST],
        others=[each for each in sections if each[0] not in _FIRST],
        latency=latency_figure(report),
        findings=sorted(report.verdict.findings, key=lambda finding: _ORDER.index(finding.outcome)),
    )


def _simple(report: Report) -> bool:
    """Whether the bins are all that is known of calibration."""
    return bool(report.calibration) and report.analyses.calibration is None


def bars(measured: Sequence[Measurement]) -> dict[int, dict[str, float]]:
    """Where each interval lies between the lowest end of all and 1, in percent, by place; none unless all are shares."""
    known = [m for m in measured if m.known and m.metric.endswith("_score") and not m.versus]
    if len(known) < 2 or not all(0 <= m.low <= m.high <= 1 for m in known):
        return {}
    start = min(m.low for m in known)
    start = max(0.0, start - 0.08 * (1 - start))
    scale = 100 / ((1 - start) or 1)
    return {
        place: {"low": (m.low - start) * scale, "high": (m.high - start) * scale, "value": (m.value - start) * scale}
        for place, m in enumerate(measured)
        if m in known
    }


def _sections(report: Report) -> list[tuple[str, str, Markup]]:
    """Name, title and inside of every analysis, those of ``_FIRST`` first."""
    found = [(name, view.TITLE, view.page(each)) for name, view, each in shown(report)]
    return sorted(found, key=lambda each: _FIRST.index(each[0]) if each[0] in _FIRST else len(_FIRST))


def _counted(verdict: Verdict) -> list[tuple[Outcome, int]]:
    """How many limits fared how, the worst first."""
    counts = Counter(finding.outcome for finding in verdict.findings)
    return [(outcome, counts[outcome]) for outcome in _ORDER if counts[outcome]]


def _methods(measured: Sequence[Measurement]) -> dict[str, str]:
    """How the interval of each metric was made, metrics of one method together."""
    names: dict[str, list[str]] = {}
    for found in measured:
        if found.method and not found.error:
            names.setdefault(found.method, []).append(found.metric)
    return {", ".join(dict.fromkeys(named)): method for method, named in names.items()}


def _row(report: Report, found: Measurement) -> dict[str, Any]:
    findings = words.findings_on(report, found)
    return {
        "name": found.metric if found.at_rps is None else f"{found.metric} at {words.number(found.at_rps)}/s",
        "value": words.estimate(found),
        "interval": words.interval(found),
        "limit": words.bounds(findings),
        "outcome": words.outcome(findings),
        "error": found.error,
    }


def _slice_plots(report: Report) -> list[Markup]:
    limited = [f.metric for f in report.verdict.findings if f.bound in ("slice_min", "slice_max")]
    drawn: list[Markup] = []
    inside = [m for m in report.measurements if m.slice and not m.versus and not m.error]
    for name in dict.fromkeys([*limited, *TASKS[report.task].main]):
        slices = [m for m in inside if m.metric == name]
        limit = next((f for f in report.verdict.findings if f.metric == name and f.bound.startswith("slice_")), None)
        if slices:
            drawn.append(plots.slices_plot(name, report.measurement(name), slices, limit))
    return drawn
