"""The few numbers of a report that people look for first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fairway.core.gate import Outcome
from fairway.core.metrics import Measurement
from fairway.evaluation import words

if TYPE_CHECKING:
    from fairway.evaluation.report import Report

_SHOWN = 8
_AS_SERVED = ("latency_p99_ms", "throughput_rps", "memory_mb", "load_ms", "energy_mj_per_request", "size_mb")
_UNITS = {"_ms": "ms", "_mb": "MB", "_rps": "/s", "_score": "", "_mj_per_request": "mJ"}
_TONES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.ERROR: "bad", Outcome.INCONCLUSIVE: "warn"}


def label(name: str) -> tuple[str, str]:
    """A metric's name for people, and its unit.

    Examples
    --------
    >>> label("latency_p99_ms"), label("roc_auc_score"), label("energy_mj_per_request")
    (('latency p99', 'ms'), ('roc auc', ''), ('energy per request', 'mJ'))
    """
    suffix = next((each for each in _UNITS if name.endswith(each)), "")
    shown = name.removesuffix(suffix).replace("_", " ")
    return shown + (" per request" if suffix == "_mj_per_request" else ""), _UNITS.get(suffix, "")


def tiles(report: Report) -> list[dict[str, Any]]:
    """Label, value, unit, interval, limit, outcome and change of each: quality first, then what the gate limits, then costs."""
    return [_tile(report, found) for found in _chosen(report)][:_SHOWN]


def _chosen(report: Report) -> Iterator[Measurement]:
    whole = [m for m in report.measurements if not m.slice and not m.versus and m.known]
    main = [m.metric for m in report.measurements if m.slice] or [m.metric for m in whole]
    wanted = dict.fromkeys([*main[:1], *report.gate, *_AS_SERVED])
    for name in wanted:
        limit = report.gate.get(name)
        found = [m for m in whole if m.metric == name]
        at_load = [m for m in found if limit is not None and limit.at_rps is not None and m.at_rps == limit.at_rps]
        yield from (at_load or found)[:1]


def _tile(report: Report, found: Measurement) -> dict[str, Any]:
    name, unit = label(found.metric)
    loaded = found.metric.startswith(("latency_", "throughput_"))
    findings = words.findings_on(report, found)
    outcome = words.outcome(findings)
    compared = report.comparison(found.metric)
    return {
        "label": f"{name} at {words.number(found.at_rps)}/s" if found.at_rps is not None and loaded else name,
        "metric": found.metric,
        "value": words.estimate(found),
        "unit": unit,
        "interval": words.interval(found),
        "limit": words.bounds(findings),
        "outcome": outcome,
        "tone": _TONES.get(Outcome(outcome), "") if outcome else "",
        "change": words.change(report, compared) if compared else "",
        "answer": str(compared.answer) if compared else "",
        "versus": report.champion.name if compared and report.champion else "",
    }
