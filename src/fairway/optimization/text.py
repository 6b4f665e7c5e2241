"""The search's outcome for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from fairway.optimization.cells import percent_cell, row, way_cells
from fairway.optimization.report import ORIGINAL, Optimization, Status
from fairway.optimization.steps import steps

WIDTH = 100
_NAME = 24


def text(optimization: Optimization) -> str:
    """What was chosen, the verdict, two tables, and why the others were not."""
    found, verdict = optimization.findings, optimization.verdict
    original = optimization.candidates[0]
    rows = [row(candidate, found, original) for candidate in optimization.candidates]
    quality = [(_short(r.name), str(r.quality), str(r.quality_change), r.status) for r in rows]
    cost = [(_short(r.name), str(r.cost), str(r.cost_change), r.memory_mb.value, r.size_mb.value) for r in rows]
    others = [c for c in optimization.candidates if c.reason and c.status is not Status.CHOSEN]
    lines = [
        *wrap(f"{found.model}: {found.chosen} is chosen ({found.reason})"),
        f"gate: {verdict.outcome.value}",
        *(line for reason in verdict.reasons for line in wrap(reason, "  ")),
        "",
        *table(("candidate", found.quality or "quality", "change", ""), quality),
        "",
        *table(("candidate", found.objective, "change", "memory MB", "size MB"), cost),
        "",
        *_bought(optimization),
        *(line for c in others for line in wrap(f"{c.name}: {c.reason}")),
        *wrap(
            f"{found.rows:,} rows evaluated, {found.calibration_rows:,} for calibration, {found.rounds} interleaved rounds, "
            f"{found.elapsed_s:.0f} s of {found.time_budget_s:.0f} s"
        ),
        *wrap(f"judged: {found.judged}"),
        *_optimism(optimization),
        *_served(optimization),
        *wrap(f"search: {found.ended}"),
    ]
    return "\n".join(lines)


def _short(name: str) -> str:
    """A name that leaves room for the numbers."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[1 - _NAME // 2 :]}"


def _optimism(optimization: Optimization) -> list[str]:
    """The change in quality on the rows that the search looked at, and on those that it did not."""
    winner, quality = optimization.winner, optimization.findings.quality
    searched = winner.measurement(quality, ORIGINAL)
    held_out = next((m for m in winner.held_out if m.metric == quality and m.versus and not m.slice), None)
    if optimization.kept_original or searched is None or held_out is None:
        return []
    shown = [f"{m.value:+.4f} [{m.low:+.4f}, {m.high:+.4f}]" for m in (searched, held_out)]
    return wrap(f"change of {quality}: {shown[0]} on the rows searched, {shown[1]} on those held out")


def _served(optimization: Optimization) -> list[str]:
    """How the chosen form is served best."""
    found = optimization.findings
    if (tuned := found.tuned) is None:
        return []
    cores = "1 core" if tuned.cores == 1 else f"{tuned.cores} cores"
    lines = wrap(f"served best on {cores}: {tuned.chosen} ({tuned.reason})")
    if not tuned.ways:
        return lines
    cells = [(str(way.tuning), *map(str, way_cells(way, found.objective).values())) for way in tuned.ways]
    header = ("served by", *way_cells(tuned.ways[0], found.objective))
    refused = [line for way in tuned.ways if way.reason for line in wrap(f"{way.tuning}: {way.reason}")]
    return ["", *table(header, cells), "", *refused, *lines]


def _bought(optimization: Optimization) -> list[str]:
    """What each pass bought: from one form to the next whose recipe goes on from it."""
    measured = {c.name: c for c in optimization.candidates}
    name = optimization.findings.objective
    rows = [
        (
            *map(_short, (s.before, ", ".join(s.passes), s.after)),
            str(percent_cell(s.cost, measured[s.before].measurement(name))),
        )
        for s in steps(optimization.findings)
    ]
    return [*table(("from", "passes added", "to", name), rows), ""] if rows else []


def wrap(line: str, indent: str = "") -> list[str]:
    """``line`` in lines of at most :data:`WIDTH`, those after the first further in."""
    return textwrap.wrap(line, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart below their headings."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    rule = ["─" * width for width in widths]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, rule, *rows)
    ]
