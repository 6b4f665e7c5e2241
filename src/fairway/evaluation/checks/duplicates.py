"""Rows that are there twice: in the test data, and in the data that the model may have been trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairway.evaluation.checks.base import Check, Severity, counted, examples, percent, without_reference
from fairway.evaluation.checks.near import near_duplicates
from fairway.evaluation.estimates import share_estimate
from fairway.evaluation.labels import missing_values

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.analyses.base import Subject
    from fairway.evaluation.checks.base import Looked
    from fairway.evaluation.predictions import Mask
    from fairway.sources.tables import Table

Hashes = NDArray[np.uint64]

_BATCH = 65_536
_COINCIDENCE = 0.01
_MANY = 0.01


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
    yield near_duplicates(looked, looked.reference, seen)


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
    return _repeated(
        Check("duplicates in the test data", Severity.FINE, "No row is there twice."),
        again,
        expected,
        subject.settings.confidence,
        (Severity.NOTE, Severity.WARNING),
        ("row", "repeats an earlier one", "repeat an earlier one"),
        "Equal rows count as evidence more than once: drop them, or name what they share as [evaluate] group.",
    )


def _across(subject: Subject, seen: Mask, expected: float) -> Check:
    return _repeated(
        Check("duplicates in the reference", Severity.FINE, "No test row is in the reference."),
        seen,
        expected,
        subject.settings.confidence,
        (Severity.WARNING, Severity.PROBLEM),
        ("test row", "is in the reference too", "are in the reference too"),
        "If the model was trained on the reference, it has seen the answers: drop these rows from the test data.",
    )


def _repeated(
    fine: Check,
    found: Mask,
    expected: float,
    confidence: float,
    grave: tuple[Severity, Severity],
    what: tuple[str, str, str],
    advice: str,
) -> Check:
    """``grave`` is how bad few, and more than one in a hundred, are, unless as many are ``expected`` by chance."""
    share = share_estimate(found, None, confidence)
    if not found.any():
        return msgspec.structs.replace(fine, value=share)
    common = expected >= _COINCIDENCE
    told = f"{counted(int(found.sum()), *what)} ({percent(share.value)})."
    return Check(
        fine.name,
        Severity.NOTE if common else grave[share.value > _MANY],
        told + " So few different rows are possible that this may be chance." if common else told,
        "" if common else advice,
        rows=examples(found),
        value=share,
    )


def _conflicts(hashes: Hashes, labels: Tensor, tested: int, expected: float) -> Check:
    """Equal rows of unequal labels."""
    order = np.argsort(hashes, kind="stable")
    sorted_hashes = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_hashes[1:] != sorted_hashes[:-1]]))
    counts = np.diff(np.append(starts, len(hashes)))
    first, several = np.repeat(starts, counts), np.repeat(counts > 1, counts)  # labels of lone rows are not looked at
    order, first, others = order[several], first[several], order[first[several]]
    one, other = ([_plain(value) for value in labels[places].tolist()] for places in (order, others))
    differs = np.array([a != b for a, b in zip(one, other, strict=True)], dtype=bool)
    bad = np.zeros(len(hashes), dtype=bool)
    bad[order] = np.isin(first, first[differs])
    count = int(bad[:tested].sum())
    if not count:
        return Check("conflicting labels", Severity.FINE, "No two equal rows have different labels.")
    common = expected >= _COINCIDENCE
    return Check(
        "conflicting labels",
        Severity.NOTE if common else Severity.WARNING,
        f"{counted(count, 'test row', 'equals', 'equal')} another row that has a different label: no model is right on all.",
        "" if common else "Look at them: labels may be wrong, or a column that tells them apart is missing.",
        rows=examples(bad[:tested]),
        value=share_estimate(bad[:tested], None, 0.95),
    )


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
