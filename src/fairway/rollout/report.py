"""A release's state for the terminal and for machines."""

from __future__ import annotations

import msgspec

from fairway.core.events import Action
from fairway.core.gate import Finding, Outcome
from fairway.rollout.analysis import ReleaseVerdict, Tally
from fairway.rollout.controller import Step
from fairway.rollout.settings import ReleaseSettings

_MARKS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.ERROR: "!", Outcome.INCONCLUSIVE: "?"}
_DONE = {Action.PROMOTED: "promoted", Action.ROLLED_BACK: "rolled back"}


def as_text(model: str, step: Step, *, settings: ReleaseSettings, now: float) -> str:
    """Weights, requests per version, intervals, the verdict with its error rates, and the command to type next.

    ``now`` is in seconds since the epoch.
    """
    release = step.release
    if release is None:
        return f"{model} was never released\nnext: fairway release {model}:VERSION"
    if step.verdict is None:
        lines = [f"{model}: version {release.champion} answers every caller"]
        if release.previous is not None:
            lines.append(f"next: fairway rollback {model}, to go back to version {release.previous}")
        return "\n".join(lines)
    lines = [_headline(step, now), *_table(step.verdict), ""]
    lines += [_finding(finding) for finding in step.verdict.verdict.findings] or [f"  ? {step.verdict.reasons[0]}"]
    if step.verdict.elsewhere:
        lines.append(f"  judged at evaluation: {', '.join(step.verdict.elsewhere)}")
    if step.unreadable:
        what = "1 window does" if step.unreadable == 1 else f"{step.unreadable:,} windows do"
        lines.append(f"  {what} not count: {step.problem}")
    return "\n".join([*lines, "", *_conclusion(step, step.verdict, settings)])


def as_json(model: str, step: Step) -> bytes:
    """The same as JSON: ``release``, ``verdict`` with its evidence, ``action``, ``next``."""
    document = {
        "model": model,
        "release": step.release,
        "verdict": None if step.verdict is None else step.verdict.evidence(),
        "action": step.action,
        "unreadable_windows": step.unreadable,
        "next": next_command(model, step),
    }
    return msgspec.json.encode(document)


def next_command(model: str, step: Step) -> str:
    """What to type next; empty where there is nothing to do.

    Examples
    --------
    >>> next_command("digits", Step(None))
    'fairway release digits:VERSION'
    """
    if step.release is None:
        return f"fairway release {model}:VERSION"
    if step.verdict is None or step.release.challenger is None:
        return "" if step.release.previous is None else f"fairway rollback {model}"
    if step.verdict.outcome is Outcome.PASSED:
        return f"fairway release {model} --promote"
    if step.verdict.outcome is Outcome.FAILED:
        return f"fairway rollback {model}"
    return f"fairway release {model} --watch"


def _headline(step: Step, now: float) -> str:
    release = step.release
    assert release is not None
    if step.action is not None or release.challenger is None:
        return f"{release.model}: version {release.champion} answers every caller"
    return (
        f"{release.model}: champion {release.champion} ({_percent(1 - release.weight)} of callers), "
        f"challenger {release.challenger} ({_percent(release.weight)}), for {_duration(now - release.started_at)}"
    )


def _table(verdict: ReleaseVerdict) -> list[str]:
    header = ("", "requests", "errors", "p50 ms", "p95 ms", "p99 ms")
    rows = [header, _row("champion", verdict.champion), _row("challenger", verdict.challenger)]
    return ["  " + f"{row[0]:<10}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    latencies = (tally.latency_p50_ms, tally.latency_p95_ms, tally.latency_p99_ms)
    return (name, f"{tally.requests:,}", f"{tally.errors:,}", *("-" if ms is None else f"{ms:.4g}" for ms in latencies))


def _finding(finding: Finding) -> str:
    return f"  {_MARKS.get(finding.outcome, ' ')} {finding.reason}"


def _conclusion(step: Step, verdict: ReleaseVerdict, settings: ReleaseSettings) -> list[str]:
    lines = [f"verdict: {verdict.outcome}{_done(step)}"]
    if verdict.judged:
        fails, passes = _percent(verdict.alpha), _percent(verdict.alpha / len(verdict.judged))
        lines += [
            f"Looked at however often, a challenger that keeps every limit fails in at most {fails} of releases,",
            f"and one that breaks a limit passes in at most {passes}.",
        ]
    missing = settings.min_requests - verdict.challenger.requests
    if verdict.outcome is Outcome.PASSED and step.action is None and missing > 0:
        lines.append(f"promoted by itself after {missing:,} more requests to the challenger")
    command = next_command(step.release.model if step.release else "", step)
    return [*lines, f"next: {command}"] if command else lines


def _done(step: Step) -> str:
    return f", {_DONE[step.action]}" if step.action in _DONE else ""


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
