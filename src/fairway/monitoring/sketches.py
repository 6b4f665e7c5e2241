"""Mergeable summaries of feature values: exact counts in the bins that the baseline fixed, at constant memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidData, NewerFormat
from fairway.core.tensors import Tensor, Tensors
from fairway.monitoring.features import Feature, TensorView

FORMAT = 1
MAX_BYTES = 64 * 2**20
_CHECKSUM_BYTES = 8
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class FeatureCounts(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What one feature's values were.

    Attributes
    ----------
    bins : list of int
        Rows per bin of the feature.
    missing, below, above : int
        Rows that were NaN, and rows outside of the baseline's range (which are in the outer bins too).
    total : float
        Sum of the finite values.
    least, most : float
        The finite values' range; infinities while there are none.
    """

    bins: list[_Count]
    missing: _Count = 0
    below: _Count = 0
    above: _Count = 0
    total: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    @property
    def rows(self) -> int:
        """Rows that had a value."""
        return sum(self.bins)

    @property
    def mean(self) -> float | None:
        """Mean of the finite values of a numeric feature."""
        return self.total / self.rows if self.rows and self.least <= self.most else None

    def add(self, other: FeatureCounts) -> None:
        """Count what ``other`` counted."""
        self.bins = [a + b for a, b in zip(self.bins, other.bins, strict=True)]
        self.missing += other.missing
        self.below += other.below
        self.above += other.above
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)


class FeatureSketches:
    """Counts of all watched features over some rows. Merging is exact, associative and commutative.

    Parameters
    ----------
    features : sequence of Feature
        From the baseline; sketches of the same features can be merged.

    Attributes
    ----------
    rows : int
        Rows counted.
    skipped : int
        Rows answered but not counted, because counting could not keep up.
    counts : list of FeatureCounts
        In the order of ``features``.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.rows = 0
        self.skipped = 0
        self.counts = [FeatureCounts([0] * feature.bins) for feature in self.features]
        self._edges = [np.array(feature.edges) for feature in self.features]
        self._codes = [_code_index(feature) for feature in self.features]

    def update(self, inputs: Tensors, outputs: Tensors, rows: int) -> None:
        """Count a batch. A tensor that is absent or has another shape is left out of its features' counts."""
        view = TensorView(inputs, outputs, rows)
        self.rows += rows
        for at, feature in enumerate(self.features):
            values = view.read(feature.source)
            if values is None or not values.size:
                continue
            if feature.codes is None:
                self._count_numbers(at, feature, values)
            else:
                bins = np.bincount(_coded(self._codes[at], values), minlength=feature.bins)
                self.counts[at].add(FeatureCounts(bins.tolist()))

    def _count_numbers(self, at: int, feature: Feature, values: Tensor) -> None:
        missing = np.isnan(values)
        gaps = int(np.count_nonzero(missing))
        if gaps:
            values = values[~missing]
        finite = values[np.isfinite(values)]
        bins = np.bincount(np.searchsorted(self._edges[at], values, side="left"), minlength=feature.bins)
        fresh = FeatureCounts(bins.tolist(), gaps)
        if finite.size:
            fresh.total = float(finite.sum())
            fresh.least, fresh.most = float(finite.min()), float(finite.max())
        if values.size and feature.low <= feature.high:
            fresh.below = int(np.count_nonzero(values < feature.low))
            fresh.above = int(np.count_nonzero(values > feature.high))
        self.counts[at].add(fresh)

    def merge(self, other: FeatureSketches) -> None:
        """Count what ``other`` counted. Raises :class:`InvalidData` if it watched other features."""
        if other.features is not self.features and other.features != self.features:
            raise InvalidData("these sketches were made with another baseline, so their bins differ; merge per version")
        self.rows += other.rows
        self.skipped += other.skipped
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            mine.add(theirs)

    def encode(self) -> bytes:
        """Versioned bytes, some 40 per feature; :meth:`decode` reads them."""
        body = msgspec.msgpack.encode(
            _Encoded(FORMAT, fingerprint(self.features), self.rows, self.skipped, self.counts)
        )
        return _checksum(body) + body

    @classmethod
    def decode(cls, data: bytes, features: Sequence[Feature]) -> FeatureSketches:
        """Read what :meth:`encode` wrote for the same ``features``.

        Raises
        ------
        InvalidData
            If the bytes are damaged, or were written for another baseline.
        NewerFormat
            If a newer Fairway wrote them.
        """
        if len(data) > MAX_BYTES:
            raise InvalidData(f"a window's sketches have {len(data):,} bytes, more than {MAX_BYTES:,}: not sketches")
        body = data[_CHECKSUM_BYTES:]
        if data[:_CHECKSUM_BYTES] != _checksum(body):
            raise InvalidData("a window's sketches are damaged (their checksum differs); this window cannot be used")
        try:
            version = msgspec.msgpack.decode(body, type=_Versioned).format
            if version > FORMAT:
                raise NewerFormat(f"sketches of format {version}, and this Fairway reads up to {FORMAT}; upgrade it")
            raw = msgspec.msgpack.decode(body, type=_Encoded)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidData(f"a window's sketches are damaged ({error}); this window cannot be used") from None
        if raw.features != fingerprint(features):
            raise InvalidData("a window's sketches were made with another baseline; compare it with its own version's")
        _check(raw, features)
        read = cls(features)
        read.rows, read.skipped, read.counts = raw.rows, raw.skipped, raw.counts
        return read


def fingerprint(features: Sequence[Feature]) -> str:
    """16 hex digits that differ if any feature or bin differs."""
    return hashlib.sha256(msgspec.json.encode(features)).hexdigest()[:16]


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


class _Versioned(msgspec.Struct):
    format: Annotated[int, msgspec.Meta(ge=1)]


class _Encoded(_Versioned, forbid_unknown_fields=True):
    features: str
    rows: _Count
    skipped: _Count
    counts: list[FeatureCounts]


def _check(raw: _Encoded, features: Sequence[Feature]) -> None:
    if len(raw.counts) != len(features):
        raise InvalidData(f"a window's sketches hold {len(raw.counts)} features instead of {len(features)}: damaged")
    for feature, counts in zip(features, raw.counts, strict=True):
        plausible = (
            len(counts.bins) == feature.bins
            and counts.rows + counts.missing <= raw.rows
            and counts.below + counts.above <= counts.rows
            and not any(map(math.isnan, (counts.total, counts.least, counts.most)))
        )
        if not plausible:
            raise InvalidData(f"a window's sketch of {feature.name!r} contradicts itself: damaged; it cannot be used")


def _code_index(feature: Feature) -> NDArray[np.float64] | dict[int | str, int]:
    codes = feature.codes or ()
    if all(isinstance(code, int) for code in codes):
        return np.array(codes, np.float64)
    return {code: at for at, code in enumerate(codes)}


def _coded(codes: NDArray[np.float64] | dict[int | str, int], values: Tensor) -> NDArray[np.intp]:
    """Each value's bin; the last one for values that the baseline does not list. ``codes`` are sorted."""
    if isinstance(codes, dict):
        return np.array([codes.get(value, len(codes)) for value in values.tolist()], np.intp)
    at = np.searchsorted(codes, values)
    known = (at < codes.size) & (codes[np.minimum(at, codes.size - 1)] == values)
    return np.where(known, at, codes.size)
