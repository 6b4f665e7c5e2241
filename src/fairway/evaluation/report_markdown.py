"""A report as Markdown for a pull request: the verdict first, one compact table, the rest folded away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.core.gate import Finding, Outcome
from fairway.core.metrics import Measurement
from fairway.evaluation import words

if TYPE_CHECKING:
    from fairway.evaluation.report import Report

LIMIT = 65_536
"""The longest comment that GitHub takes, in characters; GitLab takes a million."""

_SIGNS = {
    Outcome.PASSED: "✅",
    Outcome.FAILED: "❌",
    Outcome.ERROR: "❗",
    Outcome.INCONCLUSIVE: "❔",
    Outcome.NOT_APPLICABLE: "➖",
}
_ANSWERS = {"better": "▲ better", "worse": "▼ worse", "cannot tell": "cannot tell"}
_REASONS = 20
_RESERVE = 2_000
"""Left for what says that something was left out, and for a tool's own words around the report."""


def marker(name: str) -> str:
    """The invisible first line by which a comment is found again, to be updated rather than repeated."""
    return f"<!-- fairway-report: {re.sub(r'[^A-Za-z0-9._-]', '-', name).replace('--', '-.')} -->"


def render_markdown(report: Report, limit: int = LIMIT) -> str:
    """GitHub-flavored Markdown of fewer than ``limit`` characters, however many slices and classes there are.

    What does not fit is left out from the end, and a last line says how much. Names and reasons, which users write, can
    neither break the table, nor add markup, nor mention anybody.
    """
    text = "\n".join([marker(report.model), *_head(report), "", *_table(_HEADER, _rows(report))]) + "\n"
    left_out = 0
    for title, header, rows in _details(report):
        fold = f"\n<details><summary>{title}</summary>\n\n"
        kept, used = [], len(text) + len(fold) + len("".join(_table(header, []))) + 40
        for row in rows:
            line = _line(row)
            if used + len(line) + 1 > limit - _RESERVE:
                break
            used += len(line) + 1
            kept.append(row)
        left_out += len(rows) - len(kept)
        if kept:
            text += fold + "\n".join(_table(header, kept)) + "\n\n</details>\n"
    if left_out:
        text += f"\n{left_out:,} more lines do not fit here; the HTML and JSON reports have them.\n"
    return text


def escaped(text: str) -> str:
    r"""Text of users as it is: no markup, no table cell's end, no mention of a person or an issue.

    Examples
    --------
    >>> escaped("a|b <i> *c*")
    'a\\|b &lt;i&gt; \\*c\\*'
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_~|\[\]])", r"\\\1", text)
    return re.sub(r"([@#])(?=\w)", "\\1\u200b", text)


_HEADER = ("", "metric", "value", "interval", "limit", "change")


def _head(report: Report) -> Iterator[str]:
    verdict = report.verdict
    yield f"### {_SIGNS[verdict.outcome]} {escaped(report.model)}: {verdict.outcome}"
    yield ""
    for reason in verdict.reasons[:_REASONS]:
        yield f"- {escaped(reason)}"
    if len(verdict.reasons) > _REASONS:
        yield f"- and {len(verdict.reasons) - _REASONS:,} more"
    yield ""
    compared = f", compared with {escaped(report.champion.name)} on the same rows" if report.champion else ""
    yield (
        f"{escaped(report.task.capitalize())} on {report.rows:,} rows of {escaped(report.origin)}{compared}. "
        f"Intervals of {words.percent(report.settings.confidence)}; {words.error_rates(verdict)}."
    )


def _rows(report: Report) -> Iterator[Sequence[str]]:
    """Every metric over all rows."""
    for found in report.measurements:
        if not found.slice and not found.versus:
            yield (*_judged(report, found), _change(report, found))


def _judged(report: Report, found: Measurement) -> tuple[str, ...]:
    findings = words.findings_on(report, found)
    return (
        _sign(findings),
        _name(found),
        f"**{words.estimate(found)}**" if findings else words.estimate(found),
        escaped(words.interval(found)),
        words.bounds(findings),
    )


def _change(report: Report, found: Measurement) -> str:
    changed = report.measurement(found.metric, versus=True)
    if changed is None or changed.at_rps != found.at_rps:
        return ""
    findings = words.findings_on(report, changed)
    limit = f" ({words.bounds(findings)} {_sign(findings)})" if findings else ""
    answer = report.comparison(found.metric)
    said = f" {_ANSWERS[str(answer.answer)]}" if answer else ""
    return f"{words.estimate(changed)}{said}{limit}"


def _details(report: Report) -> Iterator[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """Title, header and rows of each folded table, the most wanted first."""
    findings = report.verdict.findings
    if findings:
        rows: list[Sequence[str]] = [(_SIGNS[f.outcome], str(f.outcome), escaped(f.reason)) for f in _worst(findings)]
        yield f"What the gate asked: {len(findings):,} findings", ("", "outcome", "reason"), rows
    inside = [m for m in report.measurements if m.slice and not m.versus]
    if inside:
        sliced: list[Sequence[str]] = []
        for m in inside:
            sign, name, *numbers = _judged(report, m)
            sliced.append((sign, escaped(m.slice), name, *numbers, f"{m.n:,}"))
        yield f"Slices: {len(report.slices):,}", ("", "slice", "metric", "value", "interval", "limit", "rows"), sliced
    if report.comparisons and report.champion:
        compared: list[Sequence[str]] = [
            (
                escaped(f"{c.slice}: {c.metric}" if c.slice else c.metric),
                _ANSWERS[str(c.answer)],
                words.change(report, c),
                words.p_value(c.adjusted),
                words.tells(c),
                escaped(c.test),
            )
            for c in report.comparisons
        ]
        title = f"Better than {escaped(report.champion.name)}?"
        yield title, ("metric", "answer", "change", "p", "rows to tell", "test"), compared
    if report.confusion is not None and report.confusion.pairs:
        pairs: list[Sequence[str]] = [
            (escaped(p.label), escaped(p.predicted), f"{p.rows:,}") for p in report.confusion.pairs
        ]
        yield "Most frequent errors", ("label", "predicted", "rows"), pairs
    facts = {
        "bundle": report.bundle,
        "data": report.data,
        "champion": report.champion.bundle if report.champion else "",
        "intervals": words.sampling(report),
        **report.environment,
    }
    yield "Where this comes from", ("", ""), [(name, escaped(fact)) for name, fact in facts.items() if fact]


def _worst(findings: Sequence[Finding]) -> list[Finding]:
    order = [Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED, Outcome.NOT_APPLICABLE]
    return sorted(findings, key=lambda finding: order.index(finding.outcome))


def _sign(findings: Sequence[Finding]) -> str:
    outcome = words.outcome(findings)
    return _SIGNS[Outcome(outcome)] if outcome else ""


def _name(found: Measurement) -> str:
    load = "" if found.at_rps is None else f" at {words.number(found.at_rps)}/s"
    return escaped(found.metric) + load


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(header), _line(["---"] * len(header)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
