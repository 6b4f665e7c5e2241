"""What one version did in one window of time: counts and a latency sketch, mergeable over replicas and windows."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairway.core.errors import InvalidData, NewerFormat
from fairway.core.events import Served

FORMAT = 1
"""The encoding that this version writes, and the newest that it reads."""

SKETCH_K = 2048
"""The latency sketch's size parameter: up to this many latencies are kept exactly; beyond, about 24 kB are."""

MAX_BYTES = 2**17
"""No encoded window is larger: 128 KiB."""


class Traffic:
    """Requests, errors, rows and latencies of one version. Mutable; not thread-safe.

    A request that was answered has a latency; one that was not is an error.

    Attributes
    ----------
    requests : int
        Valid requests, answered or not.
    errors : int
        Those that got no answer through no fault of the caller.
    rows : int
        Rows in them.

    References
    ----------
    Z. Karnin, K. Lang, E. Liberty, "Optimal quantile approximation in streams", FOCS 2016, doi:10.1109/FOCS.2016.17:
    the sketch, as implemented in Apache DataSketches.

    Examples
    --------
    >>> morning, evening = Traffic(), Traffic()
    >>> morning.add(rows=3, latencies_ms=[1.0, 2.0, 9.0])
    >>> evening.add(rows=1, errors=1)
    >>> day = Traffic.merged([morning, Traffic.decode(evening.encode())])
    >>> day.requests, day.errors, day.rows, day.latency_ms(0.5)
    (4, 1, 4, 2.0)
    """

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.rows = 0
        self._latency = _sketch()

    def add(self, *, rows: int = 0, latencies_ms: ArrayLike = (), errors: int = 0) -> None:
        """Count ``len(latencies_ms)`` answered requests and ``errors`` unanswered ones, with ``rows`` rows in all.

        A latency that is no finite number of at least 0 is left out of the sketch; its request counts.
        """
        if rows < 0 or errors < 0:
            raise ValueError(f"counts are 0 or more, not rows={rows}, errors={errors}")
        latencies = _float32(latencies_ms)
        self._count(latencies.size + errors, errors, rows, latencies)

    def observe(self, event: Served) -> None:
        """Count one served batch.

        A server tells the time of every request that it ran, of a failed one too, but only of how many failed; so where
        all failed there is no latency, and where some did theirs is among the others'. A request refused before it
        ran is an error without a time. Outputs say nothing: a server may keep them back.
        """
        latencies = _float32(event.latencies_ms)
        answered = latencies if event.errors < latencies.size else latencies[:0]
        self._count(max(latencies.size, event.errors), event.errors, event.rows, answered)

    def _count(self, requests: int, errors: int, rows: int, latencies: NDArray[np.float32]) -> None:
        self.requests += requests
        self.errors += errors
        self.rows += rows
        self._latency.update(latencies[np.isfinite(latencies) & (latencies >= 0)])

    def merge(self, other: Traffic) -> None:
        """Take in ``other``, which stays as it is."""
        self.requests += other.requests
        self.errors += other.errors
        self.rows += other.rows
        self._latency.merge(copy.copy(other._latency) if other is self else other._latency)

    @classmethod
    def merged(cls, windows: Iterable[Traffic]) -> Traffic:
        """All windows in one. In whichever order and grouping: equal counts, quantiles equal within the rank error."""
        total = cls()
        for window in windows:
            total.merge(window)
        return total

    @property
    def latencies(self) -> int:
        """How many latencies the sketch has seen."""
        return int(self._latency.n)

    @property
    def rank_error(self) -> float:
        """How far a quantile's rank can be off, as a share of the latencies: 0 while the sketch holds them all.

        Twice what DataSketches states as the 99th percentile of the largest error over all ranks. The errors have
        sub-Gaussian tails, so that twice it is out of reach in practice, over all looks at a growing sketch together.
        """
        return 2 * float(self._latency.normalized_rank_error(False)) if self._latency.is_estimation_mode() else 0.0

    def latency_ms(self, rank: float) -> float:
        """The latency in ms of which a share ``rank`` (0-1) of the answered requests is at or below; NaN without any."""
        if not self.latencies:
            return math.nan
        return float(self._latency.get_quantile(min(max(rank, 0.0), 1.0), True))

    def encode(self) -> bytes:
        """As bytes, of at most :data:`MAX_BYTES`, for a registry window."""
        body = _BODY.encode(_Body(self.requests, self.errors, self.rows, self._latency.serialize()))
        return _ENVELOPE.encode(_Envelope(FORMAT, _checksum(FORMAT, body), body))

    @classmethod
    def decode(cls, raw: bytes) -> Traffic:
        """What :meth:`encode` wrote.

        The checksum is compared before the sketch is read, since the sketch's native reader trusts its bytes.

        Raises
        ------
        InvalidData
            If the bytes are not exactly what was written.
        NewerFormat
            If a newer Fairway wrote them.
        """
        if len(raw) > MAX_BYTES:
            raise _damaged(f"{len(raw):,} bytes, where at most {MAX_BYTES:,} are written")
        try:
            version = msgspec.msgpack.decode(raw, type=_Versioned).format
            if version > FORMAT:
                raise NewerFormat(
                    f"a traffic window is of format {version}, and this Fairway reads up to {FORMAT}; "
                    "upgrade: pip install -U fairway"
                )
            envelope = msgspec.msgpack.decode(raw, type=_Envelope)
            if envelope.checksum != _checksum(version, envelope.body):
                raise _damaged("its checksum differs")
            body = msgspec.msgpack.decode(envelope.body, type=_Body)
        except msgspec.MsgspecError as error:
            raise _damaged(str(error)) from None
        return cls._of(body)

    @classmethod
    def _of(cls, body: _Body) -> Traffic:
        traffic = cls()
        traffic.requests, traffic.errors, traffic.rows = body.requests, body.errors, body.rows
        try:
            traffic._latency = type(traffic._latency).deserialize(body.latency)
        except (IndexError, ValueError, RuntimeError) as error:
            raise _damaged(str(error)) from None
        if min(body.errors, body.rows) < 0 or max(body.errors, traffic.latencies) > body.requests:
            raise _damaged("its counts contradict each other")
        return traffic

    def __repr__(self) -> str:
        return f"Traffic(requests={self.requests}, errors={self.errors}, rows={self.rows})"


class _Versioned(msgspec.Struct, array_like=True):
    format: int


class _Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    checksum: bytes
    body: bytes


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    requests: int
    errors: int
    rows: int
    latency: bytes


_BODY = msgspec.msgpack.Encoder()
_ENVELOPE = msgspec.msgpack.Encoder()


def _float32(values: ArrayLike) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).ravel()


def _sketch() -> Any:
    from datasketches import kll_floats_sketch

    return kll_floats_sketch(SKETCH_K)


def _checksum(version: int, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8, salt=version.to_bytes(8, "little", signed=True)).digest()


def _damaged(why: str) -> InvalidData:
    return InvalidData(f"a traffic window is damaged ({why}); it cannot be read: leave it out")
