"""Rows that are almost the same as one of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fairway.core.extras import require
from fairway.evaluation.checks.base import Check, Severity, encoded, examples, percent, sampled
from fairway.evaluation.estimates import share_estimate

if TYPE_CHECKING:
    from fairway.evaluation.checks.base import Looked
    from fairway.evaluation.predictions import Floats, Mask
    from fairway.sources.tables import Table

_TEST, _TEXTS = 2_000, 5_000
"""Rows of the test data, and texts of the reference, looked at for near duplicates."""
_NEAR = 0.1
"""How much closer than usual a near duplicate is: a tenth of the median distance to the nearest row."""
_ALIKE = 0.9
"""Cosine similarity of texts, by their groups of letters, from which they are near duplicates."""
_FEWEST_COLUMNS = 5


def near_duplicates(looked: Looked, known: Table, seen: Mask) -> Check:
    """Rows that are almost one of the reference, of those that are not ``seen`` there: by distance, or by letters of texts."""
    name = "near duplicates in the reference"
    subject, columns = looked.subject, looked.columns
    kept = sampled(len(looked.places), _TEST, subject.settings.seed)
    kept = kept[~seen[looked.places[kept]]]
    chosen = looked.places[kept]
    if not len(chosen):
        return Check(name, Severity.SKIPPED, "Not looked for: all rows looked at are in the reference as they are.")
    tables = [looked.test.select(kept), known]
    texts = [column for column in columns if _is_text(tables[0], column)]
    if texts:
        near = alike_texts(*(_joined(table, texts) for table in tables))
    else:
        test, reference = encoded(tables, columns)
        if known.rows < 10 or test.matrix.shape[1] < _FEWEST_COLUMNS:
            return Check(
                name,
                Severity.SKIPPED,
                f"Not looked for: with fewer than {_FEWEST_COLUMNS} columns, rows are near by chance.",
            )
        near = _close(test.matrix, reference.matrix)
    share = share_estimate(near, None, subject.settings.confidence)
    if not near.any():
        return Check(
            name, Severity.FINE, f"None of {len(chosen):,} test rows is nearly one of the reference.", value=share
        )
    rows = np.zeros(subject.table.rows, dtype=bool)
    rows[chosen[near]] = True
    return Check(
        name,
        Severity.WARNING,
        f"{int(near.sum()):,} of {len(chosen):,} test rows are nearly one of the reference ({percent(share.value)}).",
        "If they are copies with small changes, the model has almost seen the answers: drop them, or split by what they share.",
        rows=examples(rows),
        value=share,
    )


def _close(test: Floats, reference: Floats) -> Mask:
    """Far closer to a reference row than reference rows are to each other."""
    middle, scale = np.nanmean(reference, axis=0), np.nanstd(reference, axis=0)
    varied = np.isfinite(scale) & (scale > 0)
    if not varied.any():
        return np.zeros(len(test), dtype=bool)
    first, second = (
        np.nan_to_num((one[:, varied] - middle[varied]) / scale[varied], posinf=0.0, neginf=0.0)
        for one in (test, reference)
    )
    neighbors = require("sklearn.neighbors", extra="evaluate").NearestNeighbors(n_neighbors=1, algorithm="brute")
    fitted = neighbors.fit(second)
    own = fitted.kneighbors(second[: len(test)], n_neighbors=2)[0][:, 1]
    usual = float(np.median(own[own > 0])) if (own > 0).any() else 0.0
    close: Mask = fitted.kneighbors(first)[0][:, 0] < _NEAR * usual
    return close


def alike_texts(test: list[str], reference: list[str]) -> Mask:
    """By the cosine of their groups of three to five letters."""
    text = require("sklearn.feature_extraction.text", extra="evaluate")
    hashing = text.HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**18, alternate_sign=False)
    first, second = hashing.transform(test), hashing.transform(reference[:_TEXTS])
    found = [
        np.asarray((first[start : start + 200] @ second.T).max(axis=1).todense()).ravel()
        for start in range(0, len(test), 200)
    ]
    near: Mask = np.concatenate(found) >= _ALIKE
    return near


def _is_text(table: Table, column: str) -> bool:
    values = table.column(column)
    if values.ndim > 1 or values.dtype.kind not in "OSU":
        return False
    words = [len(str(value).split()) for value in values[:200]]
    return bool(words) and float(np.mean(words)) >= 3


def _joined(table: Table, texts: list[str]) -> list[str]:
    return [" ".join(map(str, parts)) for parts in zip(*(table.column(name) for name in texts), strict=True)]
