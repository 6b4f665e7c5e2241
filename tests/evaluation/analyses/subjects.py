"""Subjects of analyses that look at scored rows alone."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from fairway.evaluation.analyses.base import Subject
from fairway.evaluation.predictions import Scored
from fairway.evaluation.settings import EvaluationSettings


def of_rows(rows: Scored, **settings: Any) -> Subject:
    """Without a model and a table."""
    nothing = cast(Any, None)
    return Subject(nothing, nothing, "y", rows, (), msgspec.convert(settings, EvaluationSettings))
