"""A report as one self-contained page."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fairway.core.gate import Outcome
from fairway.core.metrics import Measurement
from fairway.evaluation import plots, words
from fairway.evaluation.diagnostics import calibration_error
from fairway.evaluation.pages import render_page
from fairway.evaluation.report import Report
from fairway.evaluation.tasks.registry import TASKS
from fairway.evaluation.views import shown

if TYPE_CHECKING:
    from markupsafe import Markup

_HEADLINES = {
    Outcome.PASSED: ("good", "Passed: every limit is kept"),
    Outcome.FAILED: ("bad", "Failed: a limit is broken"),
    Outcome.ERROR: ("bad", "Error: a measurement could not be made"),
    Outcome.INCONCLUSIVE: ("warn", "Inconclusive: there is too little evidence to pass or fail"),
}


def render_html(report: Report) -> str:
    """The page: verdict, limits, metrics, slices, errors, calibration, latency, provenance."""
    tone, headline = _HEADLINES[report.verdict.outcome]
    whole = [m for m in report.measurements if not m.slice and not m.versus]
    latency = [m for m in whole if m.metric.startswith("latency_") and m.known]
    return render_page(
        f"{report.model}: {report.verdict.outcome}",
        files("fairway.evaluation").joinpath("templates/report.html").read_text("utf-8"),
        kicker="Fairway evaluation",
        summary=f"{report.task.capitalize()} on {report.rows:,} rows of {report.origin}",
        report=report,
        words=words,
        tone=tone,
        headline=headline,
        row=lambda found: _row(report, found),
        limits=plots.limits_plot(report.verdict.findings),
        metrics=whole,
        differences=[m for m in report.measurements if m.versus and not m.slice],
        compared=[(each, words.change(report, each)) for each in report.comparisons],
        doubts=words.doubts(report.measurements),
        parts_measured=[m for m in report.measurements if m.slice and not m.versus],
        slice_plots=_slice_plots(report),
        confusion=plots.confusion_plot(report.confusion) if report.confusion and report.confusion.matrix else None,
        calibration=plots.calibration_plot(report.calibration) if _simple(report) else None,
        calibration_error=calibration_error(report.calibration),
        residuals=plots.residuals_plot(report.residuals) if report.residuals else None,
        analyses=[(name, view.TITLE, view.page(found)) for name, view, found in shown(report)],
        latency=plots.latency_plot(latency, report.verdict.findings) if latency else None,
    )


def _simple(report: Report) -> bool:
    """Whether the bins are all that is known of calibration."""
    return bool(report.calibration) and report.analyses.calibration is None


def _row(report: Report, found: Measurement) -> dict[str, Any]:
    findings = words.findings_on(report, found)
    return {
        "name": found.metric if found.at_rps is None else f"{found.metric} at {words.number(found.at_rps)}/s",
        "value": words.estimate(found),
        "interval": words.interval(found),
        "limit": words.bounds(findings),
        "outcome": words.outcome(findings),
        "method": found.error or found.method,
    }


def _slice_plots(report: Report) -> list[Markup]:
    limited = [f.metric for f in report.verdict.findings if f.bound in ("slice_min", "slice_max")]
    drawn: list[Markup] = []
    for name in dict.fromkeys([*limited, *TASKS[report.task].main]):
        slices = [m for m in report.measurements if m.metric == name and m.slice and not m.versus and not m.error]
        limit = next((f for f in report.verdict.findings if f.metric == name and f.bound.startswith("slice_")), None)
        if slices:
            drawn.append(plots.slices_plot(name, report.measurement(name), slices, limit))
    return drawn
