"""Whether the data can be trusted: duplicates, leaks, doubtful labels, shift, and too few rows for the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairway.evaluation.checks.base import Check, feature_columns
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

    Hashes of all rows are kept, 8 bytes each; what costs more looks at a seeded sample of at most 2,000 test rows and 20,000
    reference rows. Other kinds of rows than classes and numbers: ``None``.
    """
    if not isinstance(subject.rows, Classified | Regressed):
        return None
    columns = feature_columns(subject)
    found: list[Check] = [*power_checks(subject), *label_checks(subject)]
    for look in (duplicate_checks, column_checks, shift_checks):
        found += look(subject, columns)
        if subject.progress is not None:
            subject.progress("checking the data", len(found), len(found))
    return tuple(found)
