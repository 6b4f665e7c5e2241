"""The value of each quality metric: scikit-learn computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.core.gate import Gate
from fairway.core.mapping import IN_ORDER, THREADS
from fairway.core.metrics import METRICS, metric
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.roc import areas, ranked_classes
from fairway.evaluation.tallied import Tallied
from fairway.evaluation.tasks.registry import TASKS
from fairway.evaluation.weighted import cells

_MACRO = {"average": "macro", "zero_division": 0}
_WORTH_THREADS = 20_000
"""Rows."""


def main_metric(rows: Scored, task: str) -> str:
    """The metric that is measured in every slice: the task's first that these rows have."""
    names = TASKS[task].main
    return next((name for name in names if not isinstance(rows, Tallied) or name in rows.forms), names[0])


def quality_metrics(task: str) -> tuple[str, ...]:
    """Names of the metrics that are computed from predictions of this task."""
    return tuple(name for name, known in METRICS.items() if task in known.tasks and not known.by_group)


def measured_names(rows: Scored, task: str, gate: Gate) -> tuple[str, ...]:
    """The task's metrics that these rows have; one that the gate limits is there in any case, to say why it cannot be."""
    names = quality_metrics(task)
    return tuple(name for name in names if not isinstance(rows, Tallied) or name in rows.forms or name in gate)


def check_metrics(gate: Gate, task: str, own: Sequence[str] = ()) -> None:
    """Raise :class:`InvalidConfig` if the gate limits a metric that this task does not have.

    ``own`` are those of ``[evaluate] metrics``.
    """
    mine = {reference.rpartition(":")[2] for reference in own}
    for name in gate:
        if name not in METRICS and name not in mine:
            raise InvalidConfig(
                f"gate.{name}: nothing measures it; name its function in metrics = [...] under [evaluate]"
            )
        tasks = metric(name).tasks
        if name == "check_failure_rate":
            raise InvalidConfig("gate.check_failure_rate: set max_failure_rate in [[checks]], for each check its own")
        if tasks and task not in tasks:
            raise InvalidConfig(
                f"gate.{name} is a metric of {', '.join(tasks)}; for {task} there are: {', '.join(quality_metrics(task))}"
            )


def missing_for(name: str, rows: Scored) -> str:
    """Why these rows do not define a metric for want of data; empty if they do."""
    if len(rows) == 0:
        return "no rows"
    if isinstance(rows, Tallied):
        return rows.forms[name].undefined if math.isnan(value(name, rows)) else ""
    if name == "r2_score" and len(rows) < 2:
        return "one row has no variance to explain"
    if name == "roc_auc_score" and isinstance(rows, Classified) and not ranked_classes(rows.truth, len(rows.labels)):
        return f"all {len(rows)} rows are of one class, so nothing can be ranked"
    return ""


def cannot(name: str, rows: Scored) -> str:
    """Why this model can never be given a metric; empty if it can."""
    if isinstance(rows, Tallied) and name not in rows.forms:
        return rows.cannot.get(name, f"{name} does not follow from what the model answers")
    if name in ("roc_auc_score", "log_loss") and isinstance(rows, Classified) and rows.probabilities is None:
        return f"{name} needs probabilities, and the model answers labels only"
    return ""


def value(name: str, rows: Scored) -> float:
    """The metric over all rows, provided that :func:`missing_for` and :func:`cannot` are empty. Computed once."""
    if name not in rows.memo:
        rows.memo[name] = float(_value(name, rows))
    return float(rows.memo[name])


def _value(name: str, rows: Scored) -> float:
    if isinstance(rows, Tallied):
        return rows.forms[name].value(rows)
    sklearn = require("sklearn.metrics", extra="evaluate")
    if isinstance(rows, Classified):
        return _CLASSIFICATION[name](sklearn, rows)
    return _REGRESSION[name](sklearn, rows)


def values(names: Sequence[str], rows: Scored) -> list[float]:
    """:func:`value` of each of ``names``; of many rows at once."""
    mapper = THREADS if len(rows) > _WORTH_THREADS else IN_ORDER
    return list(mapper.map(lambda name: value(name, rows), names))


def _of_cells(function: str, **options: Any) -> Callable[[Any, Classified], float]:
    """A score of the confusion matrix: of one row for each of its cells, which weighs as many as there are."""

    def compute(sklearn: Any, rows: Classified) -> float:
        if "cells" not in rows.memo:
            rows.memo["cells"] = cells([rows.truth, rows.predicted])
        pairs, _, counts = rows.memo["cells"]
        return float(getattr(sklearn, function)(pairs[:, 0], pairs[:, 1], sample_weight=counts, **options))

    return compute


def _recall_of_present(sklearn: Any, rows: Classified) -> float:
    """Balanced accuracy, without the warning about predicted classes that have no row."""
    return _of_cells("recall_score", labels=np.unique(rows.truth), **_MACRO)(sklearn, rows)


def _auc(sklearn: Any, rows: Classified) -> float:
    """Each class against the rest, over the classes for which that is defined; of many rows from ranks, which is faster."""
    if len(rows) > _WORTH_THREADS:
        return areas(rows).mean
    probabilities, ranked = rows.probabilities, ranked_classes(rows.truth, len(rows.labels))
    assert probabilities is not None
    return float(np.mean([sklearn.roc_auc_score(rows.truth == c, probabilities[:, c]) for c in ranked]))


def _error(function: str) -> Callable[[Any, Regressed], float]:
    return lambda sklearn, rows: getattr(sklearn, function)(rows.truth, rows.predicted)


_CLASSIFICATION: dict[str, Callable[[Any, Classified], float]] = {
    "accuracy_score": _of_cells("accuracy_score"),
    "balanced_accuracy_score": _recall_of_present,
    "f1_score": _of_cells("f1_score", **_MACRO),
    "precision_score": _of_cells("precision_score", **_MACRO),
    "recall_score": _of_cells("recall_score", **_MACRO),
    "roc_auc_score": _auc,
    "log_loss": lambda sklearn, rows: sklearn.log_loss(
        rows.truth, rows.probabilities, labels=np.arange(len(rows.labels))
    ),
}
_REGRESSION: dict[str, Callable[[Any, Regressed], float]] = {
    name: _error(name)
    for name in ("r2_score", "mean_absolute_error", "median_absolute_error", "root_mean_squared_error")
}
