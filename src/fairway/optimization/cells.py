"""A candidate's numbers as short texts, for the terminal and the page alike."""

from __future__ import annotations

import msgspec

from fairway.core.metrics import Measurement
from fairway.optimization.report import ORIGINAL, Candidate, Findings, TunedWay

NONE = "–"


class Cell(msgspec.Struct, frozen=True):
    """A number and, where it is not exact, its interval."""

    value: str = NONE
    interval: str = ""

    def __str__(self) -> str:
        """Both on one line."""
        return f"{self.value} {self.interval}".strip()


class Row(msgspec.Struct, frozen=True):
    """One candidate's numbers. The changes are against the original: of cost in percent, where that has a meaning."""

    name: str
    status: str
    quality: Cell
    quality_change: Cell
    cost: Cell
    cost_change: Cell
    memory_mb: Cell
    size_mb: Cell


def row(candidate: Candidate, found: Findings, original: Candidate) -> Row:
    """The numbers of one candidate."""
    cost, base = candidate.measurement(found.objective), original.measurement(found.objective)
    changes = (
        (Cell(), Cell())
        if candidate.name == ORIGINAL
        else (
            quality_change_cell(candidate.measurement(found.quality, ORIGINAL)),
            percent_cell(candidate.measurement(found.objective, ORIGINAL), base),
        )
    )
    return Row(
        candidate.name,
        candidate.status.value,
        _cell(candidate.measurement(found.quality), "{:.3f}"),
        changes[0],
        _cell(cost, "{:.3g}"),
        changes[1],
        _cell(candidate.measurement("memory_mb"), "{:.0f}"),
        Cell(f"{candidate.size_bytes / 1e6:.3g}") if candidate.size_bytes else Cell(),
    )


SERVED = ("latency_p99_ms", "throughput_rps", "memory_mb")
"""What is shown of a way to serve, beside the objective."""


def way_cells(way: TunedWay, objective: str) -> dict[str, Cell]:
    """What a way to serve was measured at, the objective first; of several loads, at the largest."""
    names = dict.fromkeys((objective, *SERVED))
    found = {name: [m for m in way.measurements if m.metric == name] for name in names}
    return {name: _cell(max(of, key=lambda m: m.load_rps, default=None), "{:.3g}") for name, of in found.items()}


def quality_change_cell(change: Measurement | None) -> Cell:
    """A change of quality, in its own unit."""
    return _cell(change, "{:+.3f}")


def _cell(found: Measurement | None, form: str) -> Cell:
    if found is None or not found.has_value:
        return Cell()
    interval = (
        "" if found.low == found.high or not found.known else f"[{form.format(found.low)}, {form.format(found.high)}]"
    )
    return Cell(form.format(found.value), interval)


def percent_cell(change: Measurement | None, base: Measurement | None) -> Cell:
    """A change of cost, in percent of ``base``."""
    if change is None or base is None or not change.known or not base.value:
        return Cell()
    value, low, high = (100 * number / abs(base.value) for number in (change.value, change.low, change.high))
    return Cell(f"{value:+.0f}%", "" if low == high else f"[{low:+.0f}, {high:+.0f}]")
