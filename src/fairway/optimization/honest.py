"""Who judges the form that a search chose: rows that it did not look at, or all rows with wider intervals."""

from __future__ import annotations

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.gate import Gate
from fairway.core.metrics import Measurement
from fairway.optimization.rows import divide
from fairway.optimization.scoring import Examiner, on_quality, verdict
from fairway.optimization.settings import OptimizationSettings
from fairway.sources.tables import Table

KEPT = "the original is judged on all rows: it was not chosen for what it showed on them"


class Judges(msgspec.Struct, frozen=True, eq=False):
    """Rows to search on, and rows to judge on.

    Attributes
    ----------
    search : Table
    held_out : Table or None
        Where there are none, all rows were searched on.
    said : str
        Which rows judge, and why.
    """

    examiner: Examiner
    search: Table
    held_out: Table | None
    looks: int
    said: str

    def quality(self, bundle: Bundle, examined: int) -> tuple[Measurement, ...]:
        """Of a form that was chosen, in intervals that hold for all that could have been: finalists, or forms examined."""
        table = self.search if self.held_out is None else self.held_out
        return self.examiner.quality(bundle, table, looks=self.looks or examined, paired=True)

    def where(self, examined: int) -> str:
        """On which rows."""
        return "on held-out rows" if self.held_out is not None else f"with intervals for {examined} forms examined"


def appoint(examiner: Examiner, original: Bundle, table: Table, gate: Gate, settings: OptimizationSettings) -> Judges:
    """Hold rows out if they can settle the gate at all: if the original, as a candidate, would pass on them.

    That depends on the original alone, so it favours no form.
    """
    search, held_out = divide(table, settings.held_out, settings.seed)
    widened = "all rows judge, with intervals widened for the number of forms examined"
    if held_out is None:
        why = "no rows were held out" if not settings.held_out else "there are too few rows to hold some out"
        return Judges(examiner, table, None, 0, f"{why}: {widened}")
    limits, looks = on_quality(gate), settings.finalists
    itself = examiner.quality(original, held_out, looks=looks, paired=True) if limits else ()
    if limits and not verdict(limits, itself).passed:
        why = f"{held_out.rows:,} held-out rows could not settle the gate even for the original"
        return Judges(examiner, table, None, 0, f"{why}: {widened}")
    said = f"{held_out.rows:,} held-out rows judge, in intervals that hold for {looks} finalists"
    return Judges(examiner, search, held_out, looks, said)
