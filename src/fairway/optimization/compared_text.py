"""Two bundles beside each other, for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from fairway.core.metrics import Measurement
from fairway.evaluation.words import estimate, interval, is_quality, number
from fairway.optimization.changes import Change
from fairway.optimization.compared import Answer, Compared, Row
from fairway.optimization.text import table, wrap

_SHORT = 40


def compared_text(found: Compared) -> str:
    """The answers by metric, then what differs."""
    return "\n".join(
        [
            *wrap(f"{found.second.name} against {found.first.name}: {summary(found)}"),
            "",
            *_answers("quality", found.quality),
            "",
            *_answers("as served", found.performance),
            "",
            *(_differing(found.changes, found) if found.changes else ["nothing in the manifests differs"]),
            "",
            *wrap(notes(found)),
        ]
    )


def summary(found: Compared) -> str:
    """By how many metrics it is what, over all rows."""
    counts = Counter(row.answer for row in (*found.quality, *found.performance) if not row.slice)
    said = [f"{answer.value} by {counts[answer]}" for answer in Answer if counts[answer]]
    return f"{', '.join(said)} of {counts.total()} metrics"


def notes(found: Compared) -> str:
    """What the answers rest on."""
    return (
        f"Quality: {found.rows:,} rows, the same for both; better or worse where a paired test says so. As served: "
        f"{found.rounds} rounds that measure both in turn; better or worse where the whole interval of the difference "
        "within rounds says so. Metrics are not corrected for each other."
    )


def row_name(row: Row) -> str:
    """The metric, and where it was measured."""
    load = "" if row.at_rps is None else f" at {number(row.at_rps)}/s"
    return f"{row.metric}{load}{f' in {row.slice}' if row.slice else ''}"


def change_text(row: Row) -> tuple[str, str]:
    """The difference and its interval; of what is never 0 also in percent of the first."""
    if row.change is None or not row.change.known:
        return "—", (row.change.error or row.change.method) if row.change else ""
    relative = percent_interval(row)
    return estimate(row.change) + (f" ({relative[0]:+.0f}%)" if relative else ""), interval(row.change)


def percent_interval(row: Row) -> tuple[float, float, float] | None:
    """The difference in percent of the first, and its ends: of costs only, where it is how people think of them."""
    if row.first is None or row.change is None or not row.change.known or is_quality(row.change):
        return None
    if not row.first.known or row.first.value <= 0:
        return None
    value, low, high = (100 * x / row.first.value for x in (row.change.value, row.change.low, row.change.high))
    return (value, low, high) if math.isfinite(low) and math.isfinite(high) else None


def _answers(title: str, rows: Sequence[Row]) -> list[str]:
    cells = [
        (row_name(row), row.answer.value, _value(row.first), _value(row.second), *change_text(row)) for row in rows
    ]
    return table((title, "", "first", "second", "change", "interval"), cells)


def _value(found: Measurement | None) -> str:
    return "—" if found is None else estimate(found)


def _differing(found: Sequence[Change], compared: Compared) -> list[str]:
    cells = [(c.field, _short(c.first), _short(c.second)) for c in found]
    return table(("what differs", compared.first.name, compared.second.name), cells)


def _short(text: str) -> str:
    if not text:
        return "–"
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
