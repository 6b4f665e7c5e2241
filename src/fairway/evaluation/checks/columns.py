"""What single columns give away: constants, gaps, names of rows, and the answer itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.extras import require
from fairway.evaluation.checks.base import Check, Severity, counted, encoded, percent, sampled
from fairway.evaluation.comparison import holm
from fairway.evaluation.estimates import Estimate
from fairway.evaluation.labels import missing_values
from fairway.evaluation.predictions import Classified, Regressed

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.checks.base import Looked
    from fairway.evaluation.predictions import Floats, Mask

_ROWS = 2_000
_FEWEST = 60
_PERFECT = 0.99
_SHOWN = 10


def column_checks(looked: Looked) -> Iterator[Check]:
    """Constant, missing, id-like and target-leaking columns, of those that the model reads."""
    scalars = [name for name in looked.columns if looked.test.column(name).ndim == 1]
    yield _constant(looked, scalars)
    yield from _missing(looked, scalars)
    yield _named(looked, scalars)
    yield _leaking(looked)


def _constant(looked: Looked, columns: list[str]) -> Check:
    found = [name for name in columns if _single(looked.test.column(name))]
    if not found:
        return Check("constant columns", Severity.FINE, "Every column varies.")
    told = []
    if looked.reference is not None:
        told = [
            name for name in found if _surprising(looked.test.column(name), looked.reference.column(name), len(columns))
        ]
    if told:
        return Check(
            "constant columns",
            Severity.WARNING,
            f"{counted(len(told), 'column', 'has', 'have')} one value here, but several in the reference.",
            "The test data cover only a part of what the model was trained for.",
            columns=tuple(told[:_SHOWN]),
        )
    return Check(
        "constant columns",
        Severity.NOTE,
        f"{counted(len(found), 'column', 'has', 'have')} a single value.",
        "They tell the model nothing.",
        columns=tuple(found[:_SHOWN]),
    )


def _missing(looked: Looked, columns: list[str]) -> Iterator[Check]:
    from scipy.stats import fisher_exact

    gone = {name: missing_values(looked.test.column(name)) for name in columns}
    holed = [name for name in columns if gone[name].any()]
    if not holed:
        yield Check("missing values", Severity.FINE, "No value is missing.")
    else:
        worst = sorted(holed, key=lambda name: -gone[name].mean())
        most = float(gone[worst[0]].mean())
        yield Check(
            "missing values",
            Severity.WARNING if most > 0.5 else Severity.NOTE,
            f"{counted(len(holed), 'column', 'has', 'have')} gaps; {worst[0]} in {percent(most)} of the rows.",
            "Ask whether they are missing in service as well.",
            columns=tuple(worst[:_SHOWN]),
        )
    if looked.reference is None:
        return
    theirs = {name: missing_values(looked.reference.column(name)) for name in columns}
    compared = [name for name in columns if gone[name].any() or theirs[name].any()]
    tables = [np.array([[m.sum(), (~m).sum()] for m in (gone[name], theirs[name])]) for name in compared]
    adjusted = holm([float(fisher_exact(table).pvalue) for table in tables])
    differing = [name for name, p in zip(compared, adjusted, strict=True) if p is not None and p <= 0.01]
    if differing:
        yield Check(
            "missing values in the reference",
            Severity.WARNING,
            f"{counted(len(differing), 'column', 'is', 'are')} missing more or less often than in the reference.",
            "Find out what fills them in one place and not in the other.",
            columns=tuple(differing[:_SHOWN]),
        )


def _named(looked: Looked, columns: list[str]) -> Check:
    found = [name for name in columns if looked.test.rows >= _FEWEST and _names_rows(looked.test.column(name))]
    if not found:
        return Check("id-like columns", Severity.FINE, "No column has a name of its own for every row.")
    return Check(
        "id-like columns",
        Severity.WARNING,
        f"{counted(len(found), 'column', 'has', 'have')} a different value in every row, as ids have.",
        "An id says nothing about new rows: leave it out of [data] features.",
        columns=tuple(found[:_SHOWN]),
    )


def _leaking(looked: Looked) -> Check:
    name = "target-leaking columns"
    rows = looked.subject.rows
    assert isinstance(rows, Classified | Regressed)  # the analysis leaves other tasks out
    kept = sampled(len(looked.places), _ROWS, looked.subject.settings.seed)
    chosen = looked.places[kept]
    if len(chosen) < _FEWEST or (isinstance(rows, Classified) and len(np.unique(rows.truth[chosen])) < 2):
        return Check(name, Severity.SKIPPED, f"Not looked for: fewer than {_FEWEST} rows, or one class.")
    [made] = encoded([looked.test.select(kept)], looked.columns)
    if made.matrix.shape[1] < 2:
        return Check(name, Severity.SKIPPED, "Not looked for: the model reads a single column.")
    power = predictive_power(made.matrix, rows.truth[chosen], classes=isinstance(rows, Classified))
    order = np.argsort(-power, kind="stable")
    best = order[0]
    what = "AUC" if isinstance(rows, Classified) else "R²"
    told = f"{made.names[best]} alone predicts the label with {what} {power[best]:.3f}"
    found = [made.names[place] for place in order if power[place] >= _PERFECT]
    if not found:
        return Check(
            name,
            Severity.FINE,
            f"No column alone gives the label away: {told}, the best.",
            value=Estimate(float(power[best])),
        )
    return Check(
        name,
        Severity.PROBLEM,
        f"{counted(len(found), 'column', 'predicts', 'predict')} the label almost perfectly alone: {told}.",
        "Ask whether the column is known before the label is; if not, leave it out of [data] features and train again.",
        columns=tuple(found[:_SHOWN]),
        value=Estimate(float(power[best])),
    )


def predictive_power(matrix: Floats, truth: Tensor, *, classes: bool) -> Floats:
    """How well a shallow tree predicts the label from each column alone, on rows that it was not fitted on.

    Returns
    -------
    float array of shape (columns,)
        The AUC (of several classes, the mean of each against the rest), or the R², cross-validated over three folds.

    Examples
    --------
    >>> truth = np.arange(90) % 2
    >>> predictive_power(np.stack([truth * 1.0, np.zeros(90)], axis=1), truth, classes=True).round(2).tolist()
    [1.0, 0.5]
    """
    tree = require("sklearn.tree", extra="evaluate")
    kind = tree.DecisionTreeClassifier if classes else tree.DecisionTreeRegressor
    least = max(5, len(truth) // 100)
    model = kind(max_leaf_nodes=16, min_samples_leaf=least, random_state=0)
    folds = _folds(truth)
    return np.array(
        [_power(model, matrix[:, [place]], truth, folds, classes=classes) for place in range(matrix.shape[1])]
    )


def _power(model: Any, column: Floats, truth: Tensor, folds: Tensor, *, classes: bool) -> float:
    from fairway.evaluation.estimates import area_terms
    from fairway.evaluation.roc import ranked_classes

    known = np.where(np.isfinite(column), column, np.nan)
    if not classes:
        guessed = np.zeros(len(truth))
        for fold in range(3):
            guessed[folds == fold] = model.fit(known[folds != fold], truth[folds != fold]).predict(known[folds == fold])
        variance = float(((truth - truth.mean()) ** 2).sum())
        return 1 - float(((truth - guessed) ** 2).sum()) / variance if variance else 0.0
    size = int(truth.max()) + 1
    shown = np.zeros((len(truth), size))
    for fold in range(3):
        fitted = model.fit(known[folds != fold], truth[folds != fold])
        shown[np.ix_(folds == fold, fitted.classes_)] = fitted.predict_proba(known[folds == fold])
    ranked = ranked_classes(truth, size)
    areas = [
        area_terms(shown[folds == fold, c], truth[folds == fold] == c)[0]
        for c in ranked
        for fold in range(3)
        if 0 < (truth[folds == fold] == c).sum() < (folds == fold).sum()
    ]
    return float(np.mean(areas)) if areas else 0.5


def _folds(truth: Tensor) -> Tensor:
    """Three folds with each class (or range of values) in the same proportion."""
    rng = np.random.default_rng(52)
    shuffled = rng.permutation(len(truth))
    order = shuffled[np.argsort(truth[shuffled], kind="stable")]
    folds = np.empty(len(truth), dtype=np.intp)
    folds[order] = np.arange(len(truth)) % 3
    return folds


def _single(values: Tensor) -> bool:
    kept = values[~missing_values(values)]
    return len(kept) == 0 or bool((kept == kept[0]).all())


def _surprising(values: Tensor, reference: Tensor, columns: int) -> bool:
    """Whether so many equal values are no chance, by how frequent the value is in the reference (1 % over all columns)."""
    kept, known = values[~missing_values(values)], reference[~missing_values(reference)]
    if not len(kept) or not len(known):
        return False
    frequent = (float((known == kept[0]).sum()) + 1) / (len(known) + 2)
    return bool(frequent ** len(kept) <= 0.01 / columns)


def _names_rows(values: Tensor) -> Mask | bool:
    """All different: texts without spaces, or whole numbers that run on."""
    if values.dtype.kind in "iu":
        steps = np.diff(values.astype(np.float64))  # in the table's order, and in their own
        dense = np.diff(np.sort(values).astype(np.float64))
        return bool((dense > 0).all() and (np.median(dense) <= 2 or (steps > 0).all() or (steps < 0).all()))
    if values.dtype.kind in "OSU":
        texts = [str(value) for value in values.tolist()]
        return len(set(texts)) == len(texts) and sum(" " in text for text in texts) < 0.1 * len(texts)
    return False
