"""How a model is evaluated: ``[evaluate]`` and ``[[slices]]`` of ``fairway.toml``."""

from __future__ import annotations

from typing import Annotated

import msgspec

ANALYSES = ("errors", "weak_slices", "calibration", "thresholds", "importance", "fairness", "data_checks")
"""Every analysis, in the order of the report; each is a module of ``fairway.evaluation.analyses``."""


class SliceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the rows that is measured on its own.

    Attributes
    ----------
    name : str
        Shown in reports.
    where : str
        A SQL predicate over the data's columns, such as ``ink < 0.25``.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    where: Annotated[str, msgspec.Meta(min_length=1)]


class CostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the two errors of a classifier of two classes cost, in any unit; only their ratio moves the threshold.

    Attributes
    ----------
    false_positive : float
        Of a row that is taken for the positive class and is not of it.
    false_negative : float
        Of a row of the positive class that is missed.
    """

    false_positive: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    false_negative: Annotated[float, msgspec.Meta(ge=0)] = 1.0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if no error costs anything."""
        if self.false_positive + self.false_negative == 0:
            raise ValueError("some error must cost more than 0")


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How sure a report is, and how it is computed.

    Attributes
    ----------
    confidence : float
        Two-sided coverage of every interval. The gate's error rates follow from it.
    resamples : int
        Bootstrap resamples per metric. More make the intervals' ends steadier.
    seed : int
        Of the resampling: the same data and seed give the same report.
    batch_size : int
        Rows per call of the model.
    group : str
        A column that tells which rows belong together, such as ``patient``: rows of one group are not independent, so
        intervals and tests count groups. Empty: every row stands for itself.
    stratified : bool
        The number of rows of each class was fixed when the data were collected, so it is kept in every resample. Not
        for regression, nor with ``group``.
    power : float
        How probable it should be that a true difference to the champion is found, where the report says how many rows
        that takes.
    analyses : tuple of str
        What ``fairway evaluate`` looks for beyond metrics; by default, all that applies.
    positive : str
        The class that counts as positive in thresholds, costs and selection rates. Empty: the second of two classes, and
        each in turn of more.
    costs : table or None
        What errors cost, such as ``{ false_positive = 1, false_negative = 5 }``: the report finds the cheapest threshold.
    sensitive : tuple of str
        Columns whose groups are to be treated alike, such as ``["sex", "age_band"]``; of at most twenty values each. They
        need not be features.
    """

    confidence: Annotated[float, msgspec.Meta(ge=0.5, lt=1)] = 0.95
    resamples: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 1000
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 256
    group: str = ""
    stratified: bool = False
    power: Annotated[float, msgspec.Meta(ge=0.5, lt=1)] = 0.8
    analyses: tuple[str, ...] = ANALYSES
    positive: str = ""
    costs: CostSettings | None = None
    sensitive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what types alone do not catch."""
        if unknown := [name for name in self.analyses if name not in ANALYSES]:
            raise ValueError(f"no analysis {unknown[0]!r}; known: {', '.join(ANALYSES)}")
