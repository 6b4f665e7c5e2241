"""The value of each quality metric: scikit-learn computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.core.gate import Gate
from fairway.core.metrics import METRICS, metric
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.resampling import ranked_classes

MAIN = {"classification": "accuracy_score", "regression": "mean_absolute_error"}
"""The metric that is measured in every slice."""


def quality_metrics(task: str) -> tuple[str, ...]:
    """Names of the metrics that are computed from predictions of this task."""
    return tuple(name for name, known in METRICS.items() if task in known.tasks)


def check_metrics(gate: Gate, task: str) -> None:
    """Raise :class:`InvalidConfig` if the gate limits a metric that this task does not have."""
    for name in gate:
        tasks = metric(name).tasks
        if tasks and task not in tasks:
            raise InvalidConfig(
                f"gate.{name} is a metric of {', '.join(tasks)}; for {task} there are: {', '.join(quality_metrics(task))}"
            )


def missing_for(name: str, rows: Scored) -> str:
    """Why these rows do not define a metric for want of data; empty if they do."""
    if len(rows) == 0:
        return "no rows"
    if name == "r2_score" and len(rows) < 2:
        return "one row has no variance to explain"
    if name == "roc_auc_score" and isinstance(rows, Classified) and not ranked_classes(rows.truth, len(rows.labels)):
        return f"all {len(rows)} rows are of one class, so nothing can be ranked"
    return ""


def cannot(name: str, rows: Scored) -> str:
    """Why this model can never be given a metric; empty if it can."""
    if name in ("roc_auc_score", "log_loss") and isinstance(rows, Classified) and rows.probabilities is None:
        return f"{name} needs probabilities, and the model answers labels only"
    return ""


def value(name: str, rows: Scored) -> float:
    """The metric over all rows, provided that :func:`missing_for` and :func:`cannot` are empty."""
    sklearn = require("sklearn.metrics", extra="evaluate")
    if isinstance(rows, Classified):
        return float(_CLASSIFICATION[name](sklearn, rows))
    return float(_REGRESSION[name](sklearn, rows))


def _recall_of_present(sklearn: Any, rows: Classified) -> float:
    """Balanced accuracy, without the warning about predicted classes that have no row."""
    present = np.unique(rows.truth)
    return float(sklearn.recall_score(rows.truth, rows.predicted, labels=present, average="macro", zero_division=0))


def _auc(sklearn: Any, rows: Classified) -> float:
    """Each class against the rest, over the classes for which that is defined."""
    assert rows.probabilities is not None
    ranked = ranked_classes(rows.truth, len(rows.labels))
    return float(np.mean([sklearn.roc_auc_score(rows.truth == c, rows.probabilities[:, c]) for c in ranked]))


def _macro(function: str) -> Callable[[Any, Classified], float]:
    return lambda sklearn, rows: getattr(sklearn, function)(
        rows.truth, rows.predicted, average="macro", zero_division=0
    )


def _error(function: str) -> Callable[[Any, Regressed], float]:
    return lambda sklearn, rows: getattr(sklearn, function)(rows.truth, rows.predicted)


_CLASSIFICATION: dict[str, Callable[[Any, Classified], float]] = {
    "accuracy_score": lambda sklearn, rows: sklearn.accuracy_score(rows.truth, rows.predicted),
    "balanced_accuracy_score": _recall_of_present,
    "f1_score": _macro("f1_score"),
    "precision_score": _macro("precision_score"),
    "recall_score": _macro("recall_score"),
    "roc_auc_score": _auc,
    "log_loss": lambda sklearn, rows: sklearn.log_loss(
        rows.truth, rows.probabilities, labels=np.arange(len(rows.labels))
    ),
}
_REGRESSION: dict[str, Callable[[Any, Regressed], float]] = {
    name: _error(name)
    for name in ("r2_score", "mean_absolute_error", "median_absolute_error", "root_mean_squared_error")
}
