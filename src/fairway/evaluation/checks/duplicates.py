"""Rows that are there twice: in the test data, and in the data that the model may have been trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairway.core.extras import require
from fairway.evaluation.checks.base import Check, Severity, encoded, percent, sampled, without_reference
from fairway.evaluation.estimates import share_estimate
from fairway.evaluation.labels import missing_values

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.checks.base import Looked
    from fairway.evaluation.predictions import Floats, Mask
    from fairway.sources.tables import Table

Hashes = NDArray[np.uint64]

_BATCH = 65_536
_TEST, _TEXTS = 2_000, 5_000
"""Rows of the test data, and texts of the reference, looked at for near duplicates."""
_NEAR = 0.1
"""How much closer than usual a near duplicate is: a tenth of the median distance to the nearest row."""
_ALIKE = 0.9
"""Cosine similarity of texts, by their groups of letters, from which they are near duplicates."""
_FEWEST_COLUMNS = 5
_SHOWN = 10
_COINCIDENCE = 0.01


def duplicate_checks(looked: Looked) -> Iterator[Check]:
    """Exact duplicates within the test and with the reference, equal rows of unequal labels, and near duplicates.

    Hashing streams over the rows: 8 bytes per row are kept. Near duplicates are looked for in a sample.
    """
    subject, columns = looked.subject, looked.columns
    test = fingerprints(subject.table, columns)
    chance = coincidence(looked.test, columns)
    yield _within(subject, _later(test), len(test) * chance)
    truth = subject.table.column(subject.label)
    if looked.reference is None or subject.reference is None:
        yield without_reference("duplicates in the reference", looked)
        yield _conflicts(test, truth, len(test), len(test) * chance)
        return
    reference = fingerprints(subject.reference, columns)
    seen = np.isin(test, reference)
    yield _across(subject, seen, len(reference) * chance)
    if subject.label in subject.reference.columns:
        both = np.concatenate([truth.astype(object), subject.reference.column(subject.label).astype(object)])
        yield _conflicts(np.concatenate([test, reference]), both, len(test), len(reference) * chance)
    else:
        yield _conflicts(test, truth, len(test), len(test) * chance)
    yield _near(looked, looked.reference, seen)


def fingerprints(table: Table, columns: tuple[str, ...]) -> Hashes:
    """A 64-bit hash of every row's values in these columns, batch by batch; equal rows have equal hashes.

    Fractions count as 32-bit floats, so that what went through a text file is still equal; -0 is 0, and all NaN are equal.
    """
    parts = []
    for batch in table.batches(_BATCH, columns):
        mixed = np.zeros(batch.rows, dtype=np.uint64)
        for place, name in enumerate(columns):
            mixed = _mix(mixed * np.uint64(0x9E3779B97F4A7C15) + _hashed(batch.column(name)) + np.uint64(place))
        parts.append(mixed)
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def coincidence(few: Table, columns: tuple[str, ...]) -> float:
    """How probable two rows would be equal if columns were independent: where that is not tiny, duplicates prove nothing."""
    chance = 1.0
    for name in columns:
        counts = np.unique(_hashed(few.column(name)), return_counts=True)[1] / max(few.rows, 1)
        chance *= float((counts**2).sum())
    return chance


def _within(subject: Subject, again: Mask, expected: float) -> Check:
    share = share_estimate(again, None, subject.settings.confidence)
    if not again.any():
        return Check("duplicates in the test data", Severity.FINE, "No row is there twice.", value=share)
    common = expected >= _COINCIDENCE
    grave = Severity.WARNING if share.value > 0.01 else Severity.NOTE
    return Check(
        "duplicates in the test data",
        Severity.NOTE if common else grave,
        f"{int(again.sum()):,} rows repeat an earlier one ({percent(share.value)})."
        + (" So few different rows are possible that this may be chance." if common else ""),
        ""
        if common
        else "Equal rows count as evidence more than once: drop them, or name what they share as [evaluate] group.",
        rows=_examples(again),
        value=share,
    )


def _across(subject: Subject, seen: Mask, expected: float) -> Check:
    share = share_estimate(seen, None, subject.settings.confidence)
    if not seen.any():
        return Check("duplicates in the reference", Severity.FINE, "No test row is in the reference.", value=share)
    common = expected >= _COINCIDENCE
    grave = Severity.PROBLEM if share.value > 0.01 else Severity.WARNING
    return Check(
        "duplicates in the reference",
        Severity.NOTE if common else grave,
        f"{int(seen.sum()):,} test rows are in the reference too ({percent(share.value)})."
        + (" So few different rows are possible that this may be chance." if common else ""),
        ""
        if common
        else "If the model was trained on the reference, it has seen the answers: drop these rows from the test data.",
        rows=_examples(seen),
        value=share,
    )


def _conflicts(hashes: Hashes, labels: Tensor, tested: int, expected: float) -> Check:
    """Equal rows of unequal labels."""
    order = np.argsort(hashes, kind="stable")
    sorted_hashes = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_hashes[1:] != sorted_hashes[:-1]]))
    first = np.repeat(starts, np.diff(np.append(starts, len(hashes))))
    texts = np.array([_plain(value) for value in labels.tolist()], dtype=object)
    differs = texts[order] != texts[order[first]]
    bad = np.zeros(len(hashes), dtype=bool)
    bad[order] = np.isin(first, first[differs])
    count = int(bad[:tested].sum())
    if not count:
        return Check("conflicting labels", Severity.FINE, "No two equal rows have different labels.")
    common = expected >= _COINCIDENCE
    return Check(
        "conflicting labels",
        Severity.NOTE if common else Severity.WARNING,
        f"{count:,} test rows equal another row that has a different label: no model can be right on all.",
        "" if common else "Look at them: labels may be wrong, or a column that tells them apart is missing.",
        rows=_examples(bad[:tested]),
        value=share_estimate(bad[:tested], None, 0.95),
    )


def _near(looked: Looked, known: Table, seen: Mask) -> Check:
    name = "near duplicates in the reference"
    subject, columns = looked.subject, looked.columns
    kept = sampled(len(looked.places), _TEST, subject.settings.seed)
    kept = kept[~seen[looked.places[kept]]]
    chosen = looked.places[kept]
    tables = [looked.test.select(kept), known]
    texts = [column for column in columns if _is_text(tables[0], column)]
    if texts and len(chosen):
        near = _alike_texts(*(_joined(table, texts) for table in tables))
    else:
        test, reference = encoded(tables, columns)
        if len(chosen) == 0 or known.rows < 10 or test.matrix.shape[1] < _FEWEST_COLUMNS:
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
        rows=_examples(rows),
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


def _alike_texts(test: list[str], reference: list[str]) -> Mask:
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


def _later(hashes: Hashes) -> Mask:
    """Rows that are equal to an earlier one."""
    later = np.ones(len(hashes), dtype=bool)
    later[np.unique(hashes, return_index=True)[1]] = False
    return later


def _hashed(array: Tensor) -> Hashes:
    if array.dtype.kind in "biuf":
        flat = array.reshape(len(array), -1)
        if array.dtype.kind == "f":
            flat = flat.astype(np.float32)
        numbers = flat.astype(np.float64) + 0.0
        numbers[np.isnan(numbers)] = np.nan
        bits = np.ascontiguousarray(numbers).view(np.uint64)
        mixed = np.zeros(len(array), dtype=np.uint64)
        for place in range(bits.shape[1]):
            mixed = _mix(mixed * np.uint64(0x9E3779B97F4A7C15) + bits[:, place])
        return mixed
    texts = array.tolist()
    gone = missing_values(array) if array.ndim == 1 else np.zeros(len(array), dtype=bool)
    known = {
        text: int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        for text in {str(value) for value in texts}
    }
    return np.array([0 if x else known[str(value)] for value, x in zip(texts, gone, strict=True)], dtype=np.uint64)


def _mix(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _plain(value: object) -> object:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _examples(mask: Mask) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask)[:_SHOWN].tolist())
