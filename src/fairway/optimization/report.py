"""What a search found: every candidate, what it measured, and why it was or was not taken."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate, Outcome, Verdict
from fairway.core.manifest import PassRecord
from fairway.core.metrics import Measurement, described

ORIGINAL = "original"
"""The name of the bundle that was given, as a candidate and in paired differences."""


class Status(StrEnum):
    """What became of a candidate."""

    CHOSEN = "chosen"
    PASSED = "passed"
    REFUSED = "refused"
    NOTHING_TO_DO = "nothing to do"
    FAILED = "could not be made"
    OUTPACED = "outpaced"  # by another that keeps the gate, or by the finalists
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
        Quality on the rows searched on, and performance; those with ``versus`` are paired differences to the original.
    verdict : Verdict or None
    origin : str
        What proposed it: ``informed`` by the settings, an ``earlier`` search, ``scout`` as one of its kind, ``neighbour``,
        ``model`` or ``tpe``.
    rungs : int
        On how many parts of the rows, each larger than the one before, its quality was examined.
    ratio : float or None
        The objective at first sight, as a multiple of the original's: below 1 is better.
    held_out : tuple of Measurement
        The same qualities on rows that the search did not look at; of the chosen form and others that were so judged.
    front : bool
        Whether no other that was measured is as good in all of quality, objective, size, memory, load time and energy.
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
    origin: str = ""
    rungs: int = 0
    ratio: float | None = None
    held_out: tuple[Measurement, ...] = ()
    front: bool = False

    def measurement(self, name: str, versus: str = "") -> Measurement | None:
        """Metric ``name`` over all rows, or its paired difference to ``versus``; of several loads, the largest."""
        found = (m for m in self.measurements if m.metric == name and m.versus == versus and not m.slice)
        return max((m for m in found if not m.error), key=lambda m: m.load_rps, default=None)


class Tuning(msgspec.Struct, frozen=True):
    """A way to serve a bundle.

    Attributes
    ----------
    workers : int
        Processes that answer.
    threads : int
        Of one engine call.
    max_batch : int
        Rows of one call.
    max_wait_us : float
        How long a batch may wait for more requests, in microseconds.
    cache_bytes : int
        What each worker may keep of its answers.
    """

    workers: int
    threads: int
    max_batch: int
    max_wait_us: float = 0.0
    cache_bytes: int = 0

    def __str__(self) -> str:
        """In words, which name it in the journal."""
        parts = (
            f"{_counted(self.workers, 'worker')} of {_counted(self.threads, 'thread')}",
            f"up to {_counted(self.max_batch, 'row')}",
            *([f"waiting {self.max_wait_us:g} us"] if self.max_wait_us else []),
            *([f"keeping {self.cache_bytes / 1e6:g} MB of answers"] if self.cache_bytes else []),
        )
        return ", ".join(parts)


class TunedWay(msgspec.Struct, frozen=True):
    """A way that was measured, whether it keeps the gate's limits on performance, and why not."""

    tuning: Tuning
    measurements: tuple[Measurement, ...]
    passed: bool
    reason: str = ""


class Tuned(msgspec.Struct, frozen=True):
    """How the chosen form is served best.

    Attributes
    ----------
    cores : int
        That the server is to have.
    chosen : Tuning
    reason : str
        Why it is chosen, or why nothing was measured.
    rounds : int
        Of interleaved measurements that were finished.
    ways : tuple of TunedWay
        The bundle's own first.
    """

    cores: int
    chosen: Tuning
    reason: str
    rounds: int = 0
    ways: tuple[TunedWay, ...] = ()


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
    held_out_rows : int
        Of ``rows``, those that the search did not look at.
    rungs : int
        Parts of the other rows, the last being all of them.
    judged : str
        Which rows the verdict rests on, and why.
    ended : str
        Why no further form was tried.
    tuned : Tuned or None
        How the chosen form is served best; ``None`` where that was not asked.
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
    held_out_rows: int = 0
    rungs: int = 1
    judged: str = ""
    ended: str = ""
    tuned: Tuned | None = None


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
        """Tables for the terminal, at most 100 columns wide, and the reasons."""
        from fairway.optimization.text import text

        return text(self)

    def as_html(self) -> str:
        """One self-contained page with the Pareto plot. Raises :class:`MissingExtra` without Matplotlib or Jinja."""
        from fairway.optimization.page import page

        return page(self)


def quality_metric(gate: Gate, measurements: tuple[Measurement, ...]) -> str:
    """The quality shown first: the gate's first, else the first measured."""
    measured = [m.metric for m in measurements if not m.slice and not m.versus and described(m.metric).tasks]
    return next((name for name in gate if name in measured), measured[0] if measured else "")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
