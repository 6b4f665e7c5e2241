"""What every analysis is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fairway.core.gate import Gate
from fairway.core.metrics import Measurement
from fairway.evaluation.settings import CheckSettings, EvaluationSettings, SliceSettings

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Progress, Scored
    from fairway.model import Model
    from fairway.sources.tables import Table


@dataclass(frozen=True)
class Subject:
    """A model that has been scored, and all that it was scored with.

    Attributes
    ----------
    model : Model
        Open: an analysis may ask it again, about changed inputs say.
    table : Table
        The test rows.
    label : str
        The column that holds the truth.
    rows : Scored
        The answers beside the truth, in the table's order.
    slices : sequence of SliceSettings
        Those declared.
    settings : EvaluationSettings
    reference : Table or None
        Rows such as the model was trained on, if there are any.
    progress : callable of (what, done, total), optional
    gate : mapping of metric name to Limit
    measurements : sequence of Measurement
        All that was measured.
    checks : sequence of CheckSettings
    """

    model: Model
    table: Table
    label: str
    rows: Scored
    slices: Sequence[SliceSettings]
    settings: EvaluationSettings
    reference: Table | None = None
    progress: Progress | None = None
    gate: Gate = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    checks: Sequence[CheckSettings] = ()
