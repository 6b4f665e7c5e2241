"""What a search found: every candidate, what it measured, and why it was or was not taken."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate, Outcome, Verdict
from fairway.core.manifest import PassRecord
from fairway.core.metrics import METRICS, Measurement

ORIGINAL = "original"
"""The name of the bundle that was given, as a candidate and in paired differences."""


class Status(StrEnum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    PASSED = "passed"
    REFUSED = "refused"
    NOTHING_TO_DO = "nothing to do"
    FAILED = "could not be made"
    NOT_TRIED = "not tried"


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One form of the model.

    Attributes
    ----------
    name, summary : str
    status : Status
    reason : str
        Why it has that status.
    bundle, digest : str
        Where it lies, and its identity; empty if there is none.
    size_bytes : int
    recipe : tuple of PassRecord
        The passes that made its graph from the original's.
    measurements : tuple of Measurement
        Quality and performance; those with ``versus`` are paired differences to the original.
    verdict : Verdict or None
    """

    name: str
    summary: str
    status: Status
    reason: str = ""
    bundle: str = ""
    digest: str = ""
    size_bytes: int = 0
    recipe: tuple[PassRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    verdict: Verdict | None = None

    def measurement(self, name: str, versus: str = "") -> Measurement | None:
        """The measurement of metric ``name`` over all rows, or its paired difference to ``versus``."""
        found = (m for m in self.measurements if m.metric == name and m.versus == versus and not m.slice)
        return next((m for m in found if not m.error), None)


class Findings(msgspec.Struct, frozen=True):
    """All of a search that is data.

    Attributes
    ----------
    model, source : str
        Its name, and the digest of the bundle given.
    objective, quality : str
        The metrics that are shown first: what was improved, and what it may cost.
    rounds : int
        Of interleaved measurements that were finished.
    rows, calibration_rows : int
        That quality was measured on, and that calibrated.
    elapsed_s, time_budget_s : float
    """

    model: str
    source: str
    chosen: str
    reason: str
    objective: str
    quality: str
    rounds: int
    rows: int
    calibration_rows: int
    elapsed_s: float
    time_budget_s: float
    candidates: tuple[Candidate, ...]


class Optimization:
    """The outcome of :func:`~fairway.optimization.optimize.optimize`.

    Attributes
    ----------
    chosen : Bundle
        The best form that passes the gate, with its measured cost; the original's graph where nothing pays.
    findings : Findings
    """

    def __init__(self, chosen: Bundle, findings: Findings) -> None:
        self.chosen = chosen
        self.findings = findings

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The original first, then every candidate in the order tried."""
        return self.findings.candidates

    @property
    def winner(self) -> Candidate:
        """The candidate that was taken."""
        return next(c for c in self.candidates if c.status is Status.CHOSEN)

    @property
    def kept_original(self) -> bool:
        """Whether the original's graph was kept."""
        return self.winner.name == ORIGINAL

    @property
    def reason(self) -> str:
        """Why the winner was taken."""
        return self.findings.reason

    @property
    def verdict(self) -> Verdict:
        """The gate's verdict on the winner."""
        return self.winner.verdict or Verdict(Outcome.INCONCLUSIVE, (), 0.0, 0.0)

    @property
    def passed(self) -> bool:
        """Whether the winner passes the gate."""
        return self.verdict.passed

    def as_json(self) -> bytes:
        """All findings as UTF-8 JSON, which ``msgspec`` reads back as :class:`Findings`."""
        return msgspec.json.encode(self.findings)

    def as_text(self) -> str:
        """A table for the terminal, and the reasons."""
        return _text(self)

    def as_html(self) -> str:
        """One self-contained page with the Pareto plot. Raises :class:`MissingExtra` without Matplotlib or Jinja."""
        from fairway.optimization.page import page

        return page(self)


def quality_metric(gate: Gate, measurements: tuple[Measurement, ...]) -> str:
    """The quality shown first: the gate's first, else the first measured."""
    measured = [m.metric for m in measurements if not m.slice and not m.versus and METRICS[m.metric].tasks]
    return next((name for name in gate if name in measured), measured[0] if measured else "")


def table(optimization: Optimization) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and one row of short texts per candidate that was measured or refused."""
    found = optimization.findings
    header = ("candidate", found.quality or "quality", "change", found.objective, "change", "memory MB", "size MB", "")
    rows = [_row(candidate, found) for candidate in optimization.candidates]
    return header, rows


def with_interval(found: Measurement | None, *, signed: bool = False) -> str:
    """``0.969 [0.951, 0.982]``, or a dash."""
    if found is None:
        return "–"
    form = "{:+.3g}" if signed else "{:.4g}"
    if found.low == found.high:
        return form.format(found.value)
    return f"{form.format(found.value)} [{form.format(found.low)}, {form.format(found.high)}]"


def _row(candidate: Candidate, found: Findings) -> tuple[str, ...]:
    quality, cost = candidate.measurement(found.quality), candidate.measurement(found.objective)
    against = () if candidate.name == ORIGINAL else (ORIGINAL,)
    changes = [
        with_interval(candidate.measurement(name, *against), signed=True) if against else "–"
        for name in (found.quality, found.objective)
    ]
    memory = candidate.measurement("memory_mb")
    return (
        candidate.name,
        with_interval(quality),
        changes[0],
        with_interval(cost),
        changes[1],
        f"{memory.value:.0f}" if memory else "–",
        f"{candidate.size_bytes / 1e6:.3g}" if candidate.size_bytes else "–",
        candidate.status.value,
    )


def _text(optimization: Optimization) -> str:
    found = optimization.findings
    header, rows = table(optimization)
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    rule = "  ".join("─" * width for width in widths)
    verdict = optimization.verdict
    return "\n".join(
        line.rstrip()
        for line in (
            f"{found.model}: {found.chosen} is chosen ({found.reason})",
            f"gate: {verdict.outcome.value} ({'; '.join(verdict.reasons)})",
            "",
            lines[0],
            rule,
            *lines[1:],
            "",
            *(f"{c.name}: {c.reason}" for c in optimization.candidates if c.reason and c.status is not Status.CHOSEN),
            f"{found.rows:,} rows evaluated, {found.calibration_rows:,} calibrated, {found.rounds} interleaved rounds, "
            f"{found.elapsed_s:.0f} s of {found.time_budget_s:.0f} s",
        )
    )
