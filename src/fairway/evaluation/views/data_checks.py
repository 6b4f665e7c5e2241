"""How checks of the data are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fairway.evaluation.checks.base import Check, Severity
from fairway.evaluation.pages import render_part
from fairway.evaluation.words import p_value, ranged

if TYPE_CHECKING:
    from markupsafe import Markup

TITLE = "Data checks"
_ORDER = tuple(Severity)
_MARKS = {
    Severity.PROBLEM: "x",
    Severity.WARNING: "!",
    Severity.NOTE: "-",
    Severity.FINE: "+",
    Severity.SKIPPED: "?",
}
_TONES = {Severity.PROBLEM: "bad", Severity.WARNING: "warn", Severity.FINE: "good"}


def text(found: Sequence[Check]) -> Iterator[str]:
    """What was found, gravest first; what is fine, and what was not looked for, in a line each."""
    for each in _sorted(found):
        if each.severity in (Severity.PROBLEM, Severity.WARNING, Severity.NOTE):
            yield f"  {_MARKS[each.severity]} {each.severity}: {each.name}: {each.finding} {each.advice}".rstrip()
            if where := _where(each):
                yield f"      {where}"
    for severity in (Severity.FINE, Severity.SKIPPED):
        if names := [each.name for each in found if each.severity is severity]:
            yield f"  {_MARKS[severity]} {severity}: {', '.join(dict.fromkeys(names))}"


def page(found: Sequence[Check]) -> Markup:
    """A table, gravest first."""
    return render_part("data_checks", found=_sorted(found), tones=_TONES, where=_where, ranged=ranged, p_value=p_value)


def _sorted(found: Sequence[Check]) -> list[Check]:
    return sorted(found, key=lambda each: _ORDER.index(each.severity))


def _where(each: Check) -> str:
    parts = []
    if each.columns:
        parts.append(", ".join(each.columns))
    if each.rows:
        parts.append("rows " + ", ".join(map(str, each.rows)))
    return "; ".join(parts)
