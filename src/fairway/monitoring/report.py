"""What the judgment of windows against a baseline came to, as data."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

Check: TypeAlias = Literal["distribution", "missing", "out of range"]


class DriftOutcome(StrEnum):
    """What was found. Without enough rows there is no verdict: no data is not the same as no drift."""

    DRIFT = "drift"
    NO_DRIFT = "no drift"
    INCONCLUSIVE = "inconclusive"


class Finding(msgspec.Struct, frozen=True):
    """One check of one feature in one look.

    Attributes
    ----------
    feature, side : str
        ``side`` is ``input`` or ``output``.
    check : str
    effect : float
        For a distribution the Jensen-Shannon divergence in bits (0-1), less what sampling alone gives. Else the change of
        the share of rows, 0-1.
    p_value : float
        Adjusted for the number of checks in the look.
    drifted : bool
        Large enough, and not by chance.
    baseline, current : float or None
        Mean of a numeric feature, or the share of rows that are missing or out of range.
    """

    feature: str
    side: str
    check: Check
    effect: float
    p_value: float
    drifted: bool
    baseline: float | None = None
    current: float | None = None


class Look(msgspec.Struct, frozen=True):
    """One judgment: windows that together had enough rows.

    Attributes
    ----------
    number : int
        1, 2, 3 …
    started_at, ended_at : float
        Seconds since the epoch.
    first_row, rows : int
        Which rows were judged, counted from the first one served (0).
    allowance : float
        The part of ``alpha`` that this look may spend.
    drifted : tuple of str
        Features that drifted.
    effects : dict
        Effect on the distribution, in bits, of the features that the report shows.
    """

    number: int
    started_at: float
    ended_at: float
    first_row: int
    rows: int
    allowance: float
    drifted: tuple[str, ...]
    effects: dict[str, float] = {}


class Histogram(msgspec.Struct, frozen=True):
    """One feature's rows per bin, then and now. ``edges`` is empty for discrete features; ``labels`` has one per bin."""

    feature: str
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    low: float
    high: float
    baseline: tuple[int, ...]
    current: tuple[int, ...]


class DriftReport(msgspec.Struct, frozen=True):
    """The judgment of one version's windows. Made by :func:`~fairway.monitoring.drift.drift`.

    Attributes
    ----------
    model : str
    version : int
    outcome : DriftOutcome
        ``DRIFT`` if any look found some. Whether it lasts, the latest look says.
    reason : str
        In one sentence.
    requests, errors, rows : int
        Traffic in all windows.
    counted, skipped : int
        Rows whose features were counted, and those left out because counting could not keep up.
    pending : int
        Rows too recent, too few, to be judged yet.
    unreadable : tuple of str
        Why windows could not be read; their rows are in no look.
    looks : tuple of Look
        In order of time.
    shown : int or None
        The look that ``findings`` and ``histograms`` are of: the latest with drift, else the latest. An index of ``looks``.
    findings : tuple of Finding
        All checks of that look: drifted ones first, then by effect.
    histograms : tuple of Histogram
        Of the features that moved most.
    """

    model: str
    version: int
    outcome: DriftOutcome
    reason: str
    alpha: float
    min_effect: float
    min_share: float
    min_rows: int
    baseline_rows: int
    requests: int = 0
    errors: int = 0
    rows: int = 0
    counted: int = 0
    skipped: int = 0
    pending: int = 0
    unreadable: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    shown: int | None = None
    findings: tuple[Finding, ...] = ()
    histograms: tuple[Histogram, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether any look found drift."""
        return self.outcome is DriftOutcome.DRIFT

    @property
    def error_rate(self) -> float | None:
        """Share of requests that got no answer; ``None`` without requests."""
        return self.errors / self.requests if self.requests else None

    @property
    def sampled_share(self) -> float | None:
        """Share of the answered rows whose features were counted; ``None`` without any."""
        return self.counted / (self.counted + self.skipped) if self.counted + self.skipped else None

    def as_text(self) -> str:
        """For a terminal: the verdict, then what moved most."""
        from fairway.monitoring.text import report_as_text

        return report_as_text(self)

    def as_json(self) -> bytes:
        """Everything, as JSON; :meth:`from_json` reads it."""
        return msgspec.json.encode(self)

    def as_html(self) -> str:
        """One self-contained page with plots. Needs the extra ``evaluate``."""
        from fairway.monitoring.page import report_as_html

        return report_as_html(self)

    @classmethod
    def from_json(cls, data: bytes) -> DriftReport:
        """What :meth:`as_json` wrote. Raises ``msgspec.MsgspecError`` if it is something else."""
        return msgspec.json.decode(data, type=cls)
