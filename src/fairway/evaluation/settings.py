"""How a model is evaluated: ``[evaluate]`` and ``[[slices]]`` of ``fairway.toml``."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

ANALYSES = (
    *("errors", "weak_slices", "robustness", "checks"),
    *("calibration", "thresholds", "importance", "fairness", "data_checks"),
)
"""Every analysis, in the order of the report; each is a module of ``fairway.evaluation.analyses``."""


def metric_name(reference: str) -> str:
    """What the metric is called that ``[evaluate] metrics`` names: the function, or the entry point.

    Examples
    --------
    >>> metric_name("my_metrics:cost_score"), metric_name("cost_score")
    ('cost_score', 'cost_score')
    """
    return reference.rpartition(":")[2]


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


class ChangeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a check changes in every row: one column, in one way.

    Attributes
    ----------
    column : str
        A column of the data that the model sees.
    add : float
        Added to its numbers.
    multiply : float
        Its numbers are multiplied by this.
    set : string, integer, float or boolean
        Put in the place of its values.
    replace : table of string to string
        Parts of its texts, and what to put in their place.
    """

    column: Annotated[str, msgspec.Meta(min_length=1)]
    add: float | None = None
    multiply: float | None = None
    set: str | int | float | bool | None = None
    replace: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what types alone do not catch."""
        ways = [way for way in ("add", "multiply", "set", "replace") if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(f"a change is one of add, multiply, set, replace; here are {', '.join(ways) or 'none'}")
        for number in (self.add, self.multiply):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"a change by {number} is none; write a finite number")
        if self.replace is not None and "" in {*self.replace, *(() if self.replace else ("",))}:
            raise ValueError("replace needs texts to be replaced, none of them empty")


class CheckSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A change of inputs whose effect on the answer is known beforehand.

    Attributes
    ----------
    name : str
        Shown in reports.
    kind : str
        What the answer must do: stay (``invariant``), not fall (``increases``) or not rise (``decreases``). Of a classifier,
        the predicted class must stay, and the probability of ``of`` not fall or rise.
    change : table
        What is changed, see below.
    where : str
        A SQL predicate over the data's columns; empty: all rows.
    of : str
        The class whose probability is meant; of two classes, the second by default.
    tolerance : float
        How far an answer may move in the wrong direction (``invariant``: the predicted number may move at all).
    max_failure_rate : float
        A limit that the gate judges together with its own: the whole interval of the failure rate must keep it. Without, the
        check is reported only.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    kind: Literal["invariant", "increases", "decreases"]
    change: ChangeSettings
    where: str = ""
    of: str = ""
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    max_failure_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


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
    robustness_rows : int
        Rows that inputs are perturbed on, drawn at random: the model answers each about 30 times for numbers or images, 25
        for texts. 0 leaves it out.
    query : str
        Ranking: the column that tells which rows are of one query.
    pair : str
        Embeddings: the column of the other side of each row's pair; the one side is the column of the model's own input.
    max_tokens : int
        Generation: how many tokens the model may write for a row, each from the whole text again; 0 writes nothing, so that
        only perplexity is measured.
    metrics : tuple of str
        Metrics of your own: ``module:function``, imported from the folder of ``fairway.toml``, or the name of an entry point of
        the group ``fairway.metrics``.
    processes : int
        Fresh processes among which the load is divided. Time to load, first request and memory are measured once in
        each: more make their intervals narrower, and one gives none, so that a limit on them is inconclusive.
    core_watts : float
        What one busy core draws, for the estimate of energy where the processor's own counters cannot be read.
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
    robustness_rows: Annotated[int, msgspec.Meta(ge=0)] = 500
    query: str = ""
    pair: str = ""
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 32
    metrics: tuple[str, ...] = ()
    processes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    core_watts: Annotated[float, msgspec.Meta(gt=0)] = 12.0
    analyses: tuple[str, ...] = ANALYSES
    positive: str = ""
    costs: CostSettings | None = None
    sensitive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for what types alone do not catch."""
        if unknown := [name for name in self.analyses if name not in ANALYSES]:
            raise ValueError(f"no analysis {unknown[0]!r}; known: {', '.join(ANALYSES)}")


class TrackingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where evaluations are logged, beside the report.

    Attributes
    ----------
    mlflow : str
        An MLflow tracking server or store, such as ``http://mlflow:5000`` or ``sqlite:///mlflow.db``. Empty: none. With
        credentials in it, give it as ``FAIRWAY_TRACKING_MLFLOW`` rather than in a file.
    experiment : str
        Of MLflow. Empty: the model's name.
    """

    mlflow: str = ""
    experiment: str = ""
