"""Whether the data can be trusted: duplicates, leaks, doubtful labels, shift, and too few rows for the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.evaluation.checks.base import Check, look
from fairway.evaluation.checks.columns import column_checks
from fairway.evaluation.checks.duplicates import duplicate_checks
from fairway.evaluation.checks.noise import label_checks
from fairway.evaluation.checks.power import power_checks
from fairway.evaluation.checks.shift import shift_checks
from fairway.evaluation.predictions import Classified, Regressed

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject


def analyse(subject: Subject) -> tuple[Check, ...] | None:
    """Every check, those that found nothing too.

    Hashes of all rows are kept, 8 bytes each; all else looks at a seeded sample of at most 20,000 rows of either
    side. Other kinds of rows than classes and numbers: ``None``.
    """
    if not isinstance(subject.rows, Classified | Regressed):
        return None
    looked = look(subject)
    found: list[Check] = []
    checks = (power_checks, label_checks, duplicate_checks, column_checks, shift_checks)
    for done, check in enumerate(checks, 1):
        found += check(looked)
        if subject.progress is not None:
            subject.progress("checking the data", done, len(checks))
    return tuple(found)
