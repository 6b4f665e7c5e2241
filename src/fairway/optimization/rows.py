"""Which test rows a search may look at, in which order, and which it may not."""

from __future__ import annotations

import msgspec
import numpy as np

from fairway.evaluation.settings import EvaluationSettings
from fairway.sources.tables import Table

ENOUGH = 200
"""Rows below which a part of the data is not worth a look of its own."""
_PARTS = (1 / 9, 1 / 3)
_RESAMPLES = 100_000


def divide(table: Table, held_out: float, seed: int) -> tuple[Table, Table | None]:
    """Rows to search on, and rows held out of the search; none of these where there are too few."""
    count = int(table.rows * held_out)
    if count < ENOUGH:
        return table, None
    drawn = np.random.default_rng(seed).permutation(table.rows)
    return table.select(np.sort(drawn[count:])), table.select(np.sort(drawn[:count]))


def rungs(table: Table, seed: int) -> tuple[Table, ...]:
    """A ninth and a third of the rows, where they are enough, and all of them; each part holds the one before."""
    drawn = np.random.default_rng(seed + 1).permutation(table.rows)
    counts = [count for part in _PARTS if (count := int(table.rows * part)) >= ENOUGH]
    return (*(table.select(np.sort(drawn[:count])) for count in counts), table)


def corrected(settings: EvaluationSettings, looks: int) -> EvaluationSettings:
    """Settings under which ``looks`` intervals are all right as often as one is under ``settings`` (Bonferroni).

    Examples
    --------
    >>> round(corrected(EvaluationSettings(confidence=0.95), 5).confidence, 3)
    0.99
    """
    if looks <= 1:
        return settings
    confidence, resamples = 1 - (1 - settings.confidence) / looks, min(settings.resamples * looks, _RESAMPLES)
    return msgspec.structs.replace(settings, confidence=confidence, resamples=resamples)
