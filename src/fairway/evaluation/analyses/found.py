"""What the analyses found, by name, and the one function that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from fairway.evaluation.analyses.calibration import Calibration
from fairway.evaluation.analyses.checks import CheckReport
from fairway.evaluation.analyses.errors import ErrorExample
from fairway.evaluation.analyses.fairness import Fairness
from fairway.evaluation.analyses.importance import Importance
from fairway.evaluation.analyses.robustness import Robustness
from fairway.evaluation.analyses.thresholds import ClassThresholds
from fairway.evaluation.analyses.weak_slices import WeakSlices
from fairway.evaluation.checks.base import Check
from fairway.evaluation.settings import ANALYSES

if TYPE_CHECKING:
    from fairway.evaluation.analyses.base import Subject


class Analyses(msgspec.Struct, frozen=True, omit_defaults=True):
    """What each analysis found; ``None`` where it was not run, or does not apply.

    Attributes
    ----------
    errors : tuple of ErrorExample or None
        The rows that the model gets most wrong.
    weak_slices : WeakSlices or None
        Where it is worse than elsewhere.
    robustness : Robustness or None
        What perturbed inputs do to it.
    checks : tuple of CheckReport or None
        Those declared as ``[[checks]]``.
    calibration : Calibration or None
        Whether probabilities come true, and whether scaling them would help; the errors' bands of a regression.
    thresholds : tuple of ClassThresholds or None
        ROC, precision-recall and cost curves, and thresholds assessed on rows that they were not chosen on.
    importance : Importance or None
        Which features the model relies on.
    fairness : tuple of Fairness or None
        Metrics by the groups of each sensitive column.
    data_checks : tuple of Check or None
        What was looked for in the data, found or not.
    """

    errors: tuple[ErrorExample, ...] | None = None
    weak_slices: WeakSlices | None = None
    robustness: Robustness | None = None
    checks: tuple[CheckReport, ...] | None = None
    calibration: Calibration | None = None
    thresholds: tuple[ClassThresholds, ...] | None = None
    importance: Importance | None = None
    fairness: tuple[Fairness, ...] | None = None
    data_checks: tuple[Check, ...] | None = None


def analyse(subject: Subject, names: Sequence[str] = ANALYSES) -> Analyses:
    """Run the named analyses."""
    found = {name: import_module(f"fairway.evaluation.analyses.{name}").analyse(subject) for name in names}
    return Analyses(**found)
