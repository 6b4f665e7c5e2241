"""A replay for a terminal."""

from __future__ import annotations

from fairway.optimization.replay import Replay, StageOutcome
from fairway.optimization.text import table, wrap


def replay_text(found: Replay) -> str:
    """The answer, stage by stage, and what is otherwise than it was."""
    lines = wrap(f"{found.model}: {_answer(found)}")
    if found.stages:
        rows = [(s.name, s.outcome.value, _short(s.recorded), _short(s.made)) for s in found.stages]
        lines += ["", *table(("pass", "", "recorded", "now"), rows)]
    reasons = [f"{stage.name}: {stage.reason}" for stage in found.stages if stage.reason]
    lines += ["", *(line for reason in reasons for line in wrap(reason))] if reasons else []
    if not found.same:
        lines += ["", *(line for cause in found.causes or (_UNEXPLAINED,) for line in wrap(cause))]
    return "\n".join([*lines, "", *wrap(f"bundle {found.bundle}"), *wrap(f"made from {found.source}")])


_UNEXPLAINED = "libraries, processor and reference data are what they were, as far as the bundle tells"


def _answer(found: Replay) -> str:
    if found.same:
        number = len(found.stages)
        return f"the same digests after {number} pass{'es' if number != 1 else ''}" if number else "no pass made it"
    last = found.stages[-1]
    said = "differs first" if last.outcome is StageOutcome.DIFFERS else "could not be made"
    left = f"; {found.left} later not tried" if found.left else ""
    return f"not the same: {last.name} {said}{left}"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12] or "–"
