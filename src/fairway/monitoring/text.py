"""A drift report for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairway.monitoring.report import DriftReport, Finding, Look

_ROWS = 10
_BAR = 20


def report_as_text(report: DriftReport) -> str:
    """The verdict, the traffic, and a table of what moved most."""
    name = f"{report.model}:{report.version}" if report.model else "no traffic"
    lines = [f"{report.outcome.upper()}  {name}: {report.reason}", "", *_facts(report)]
    if report.shown is not None:
        look = report.looks[report.shown]
        lines += [
            "",
            f"Look {look.number}, {when(look)}, {look.rows:,} rows against {report.baseline_rows:,} of the baseline:",
        ]
        lines += _table(report)
    return "\n".join(lines) + "\n"


def when(look: Look) -> str:
    """A look's time span, UTC."""
    start, end = (datetime.fromtimestamp(at, UTC) for at in (look.started_at, look.ended_at))
    return f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"


def facts(report: DriftReport) -> dict[str, str]:
    """What the report rests on, by name."""
    rate, share = report.error_rate, report.sampled_share
    shown = {
        "requests": f"{report.requests:,}" + (f", {rate:.2%} unanswered" if rate is not None else ""),
        "rows": f"{report.rows:,}" + (f", features counted of {share:.1%}" if share is not None else ""),
        "looks": f"{len(report.looks):,} of {report.min_rows:,} rows or more"
        + (f"; {report.pending:,} rows wait for the next" if report.pending else ""),
        "false alarm": f"at most {report.alpha:.1%} over all looks, for ever",
    }
    if report.unreadable:
        shown["unreadable"] = "; ".join(report.unreadable)
    return shown


def sentence(finding: Finding) -> str:
    """What changed, in numbers."""
    then, now = finding.baseline, finding.current
    if finding.check == "distribution":
        moved = "" if then is None or now is None else f"mean {then:.4g} → {now:.4g}"
    else:
        moved = f"{finding.check} {then or 0:.2%} → {now or 0:.2%}"
    return moved or "shares changed"


def size(finding: Finding) -> str:
    """An effect with its unit."""
    return f"{finding.effect:.3f} bits" if finding.check == "distribution" else f"{finding.effect:.1%}"


def _facts(report: DriftReport) -> list[str]:
    return [f"  {name:<12} {value}" for name, value in facts(report).items()]


def _table(report: DriftReport) -> list[str]:
    shown = report.findings[:_ROWS]
    width = max(map(len, (f.feature for f in shown)), default=0)
    width = min(max(width, 7), 32)
    lines = [f"  {'':5}  {'feature':<{width}}  {'side':<6}  {'effect':>10}  {'':{_BAR}}  what changed"]
    for finding in shown:
        mark = "DRIFT" if finding.drifted else ""
        lines.append(
            f"  {mark:5}  {_cut(finding.feature, width):<{width}}  {finding.side:<6}  {size(finding):>10}  "
            f"{_bar(finding.effect):<{_BAR}}  {sentence(finding)}"
        )
    rest = len(report.findings) - len(shown)
    drifted = sum(f.drifted for f in report.findings[_ROWS:])
    if rest:
        lines.append(f"  and {rest} more checks, {drifted} of them drifted")
    return lines


def _bar(share: float) -> str:
    """``share`` (0-1) of the bar's width, in eighths of a character."""
    eighths = round(min(max(share, 0.0), 1.0) * _BAR * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
