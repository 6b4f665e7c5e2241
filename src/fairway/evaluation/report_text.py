"""A report as plain text for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from fairway.core.gate import Outcome
from fairway.core.metrics import Measurement
from fairway.evaluation.comparison import Comparison
from fairway.evaluation.diagnostics import calibration_error
from fairway.evaluation.report import Report
from fairway.evaluation.views import shown
from fairway.evaluation.words import (
    bounds,
    change,
    comparison_note,
    doubts,
    error_rates,
    estimate,
    findings_on,
    interval,
    number,
    outcome,
    p_value,
    percent,
    reach,
    sampling,
    tells,
)

WIDTH = 100
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal would take for a command, or turn around: names and values of data may hold it."""
_MARKS = {
    Outcome.PASSED: "+",
    Outcome.FAILED: "x",
    Outcome.INCONCLUSIVE: "?",
    Outcome.ERROR: "!",
    Outcome.NOT_APPLICABLE: "-",
}


def render_text(report: Report) -> str:
    """Verdict, metrics, slices, differences, findings, errors, provenance."""
    sections: list[Iterable[str]] = [
        _verdict(report),
        _metrics(report),
        _slices(report),
        _differences(report),
        _comparisons(report),
    ]
    sections += [_doubts(report), _findings(report), _details(report)]
    sections += [[view.TITLE, *_fitted(view.text(found))] for _, view, found in shown(report)]
    sections += [_provenance(report)]
    text = "\n\n".join("\n".join(lines) for section in sections if (lines := list(section))) + "\n"
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _verdict(report: Report) -> Iterator[str]:
    yield from _wrapped(f"{str(report.verdict.outcome).upper()}: {report.model} on {report.rows:,} rows")
    yield from _wrapped(error_rates(report.verdict), indent=2)


def _metrics(report: Report) -> Iterator[str]:
    found = [m for m in report.measurements if not m.slice and not m.versus]
    yield f"Metrics, with {percent(report.settings.confidence)} intervals"
    yield from _table(
        ("metric", "value", "interval", "limit", "verdict", "n"),
        [(_name(m), *_numbers(report, m)) for m in found],
        right=(1, 5),
    )


def _slices(report: Report) -> Iterator[str]:
    if not report.slices:
        return
    yield "Slices"
    rows = [(each.name, _name(m), *_numbers(report, m)) for each in report.slices for m in _inside(report, each.name)]
    yield from _table(("slice", "metric", "value", "interval", "limit", "verdict", "n"), rows, right=(2, 6))
    for each in report.slices:
        yield from _wrapped(f"{each.name}: {each.rows:,} rows where {each.where}", indent=2)


def _differences(report: Report) -> Iterator[str]:
    found = [m for m in report.measurements if m.versus and not m.slice]
    if not found:
        return
    yield from _wrapped(f"Change against {found[0].versus}, on the same rows")
    rows = [(_name(m), *_numbers(report, m)) for m in found]
    yield from _table(("metric", "change", "interval", "limit", "verdict", "n"), rows, right=(1, 5))


def _comparisons(report: Report) -> Iterator[str]:
    if not report.comparisons or report.champion is None:
        return
    yield from _wrapped(f"Better than {report.champion.name}?")
    for part, header in (("", "metric"), ("in", "slice: metric")):
        rows = [
            (f"{c.slice}: {c.metric}" if c.slice else c.metric, *_answer(report, c))
            for c in report.comparisons
            if bool(c.slice) == bool(part)
        ]
        if rows:
            titles = (header, "answer", "change", "p", "finds", "rows to tell", "test")
            yield from _table(titles, rows, right=(2, 3, 4, 5))
    yield from _wrapped(comparison_note(report), indent=2)


def _answer(report: Report, compared: Comparison) -> tuple[str, ...]:
    numbers = change(report, compared), p_value(compared.adjusted), reach(compared), tells(compared)
    return str(compared.answer), *numbers, compared.test


def _doubts(report: Report) -> Iterator[str]:
    found = doubts(report.measurements)
    if not found:
        return
    yield "Approximate intervals (≈): they may miss more often than stated"
    for line in found:
        yield from _wrapped(line, indent=2, hanging=2)


def _findings(report: Report) -> Iterator[str]:
    if not report.verdict.findings:
        return
    yield "Findings"
    for finding in report.verdict.findings:
        mark = f"  {_MARKS[finding.outcome]} {finding.outcome:<14} "
        yield from _wrapped(mark + finding.reason, hanging=len(mark))


def _details(report: Report) -> Iterator[str]:
    if report.confusion is not None and report.confusion.pairs:
        worst = report.confusion.pairs[:5]
        shown = ", ".join(f"{pair.label} taken for {pair.predicted} ({pair.rows:,})" for pair in worst)
        yield from _wrapped(f"Most frequent errors: {shown}", hanging=2)
    if report.calibration and report.analyses.calibration is None:
        error = calibration_error(report.calibration)
        yield from _wrapped(f"Calibration: confidence and accuracy differ by {number(error)} on average", hanging=2)
    if report.residuals is not None:
        left = report.residuals
        spread = ", ".join(f"{float(level):.0%} {number(error)}" for level, error in left.quantiles.items())
        yield from _wrapped(
            f"Errors (prediction minus label): mean {number(left.mean)}, standard deviation {number(left.deviation)}; "
            f"quantiles {spread}",
            hanging=2,
        )


def _fitted(lines: Iterable[str]) -> Iterator[str]:
    """Lines that are too long go on in the next, two columns further in."""
    for line in (" ".join(each.splitlines()) for each in lines):
        indent = len(line) - len(line.lstrip())
        yield from _wrapped(line.lstrip(), indent=indent, hanging=2) if len(line) > WIDTH else [line]


def _provenance(report: Report) -> Iterator[str]:
    facts = {
        "bundle": report.bundle,
        "data": f"{report.origin} ({report.data})",
        "label": report.label,
        "intervals": sampling(report),
        "environment": ", ".join(f"{name} {version}" for name, version in report.environment.items()),
    }
    if report.champion is not None:
        facts["champion"] = f"{report.champion.name} ({report.champion.bundle})"
    for name, fact in facts.items():
        yield from _wrapped(f"{name:<12} {fact}", hanging=13)


def _inside(report: Report, part: str) -> list[Measurement]:
    return [m for m in report.measurements if m.slice == part and not m.versus]


def _name(found: Measurement) -> str:
    return found.metric if found.at_rps is None else f"{found.metric} at {number(found.at_rps)}/s"


def _numbers(report: Report, found: Measurement) -> tuple[str, ...]:
    findings = findings_on(report, found)
    return (
        estimate(found),
        interval(found),
        bounds(findings),
        outcome(findings),
        f"{found.n:,}" if found.n or found.slice else "",
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> Iterator[str]:
    """Columns two spaces apart; if that is too wide, the first one is shortened."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    excess = 2 + sum(widths) + 2 * (len(widths) - 1) - WIDTH
    widths[0] = max(8, widths[0] - max(0, excess))
    for row in (header, *rows):
        cells = [
            _short(cell, width).rjust(width) if place in right else _short(cell, width).ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()[:WIDTH]


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(text: str, *, indent: int = 0, hanging: int = 0) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + hanging)) or [""]
