"""One version's window while it lasts: what the event loop hands over, and what is made of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from fairway.core.events import Served
from fairway.core.tensors import Tensor, Tensors
from fairway.monitoring.features import Feature
from fairway.monitoring.sketches import FeatureSketches
from fairway.rollout.traffic import Traffic

MAX_UNCOUNTED = 2**16
"""Requests that may wait to be counted; beyond, they are counted on the spot, so that memory stays bounded."""

_JOIN_ROWS = 4096
Batch: TypeAlias = tuple[Tensors, Tensors, int]


class Handover:
    """What was noted and not yet counted. Noting is cheap; counting is for the observer's thread.

    Attributes
    ----------
    batches : list of (inputs, outputs, rows)
        Waiting for their features to be counted.
    queued_bytes : int
        Their arrays' size.
    skipped : int
        Answered rows whose features will not be counted, for lack of room.
    """

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.queued_bytes = 0
        self.skipped = 0
        self._rows = 0
        self._errors = 0
        self._latencies: list[float] = []
        self._failed: list[Served] = []
        self._overflow: Traffic | None = None

    def note(self, event: Served, room_bytes: float) -> int:
        """Take note of a batch; its arrays only if they fit in ``room_bytes``. Returns the bytes held."""
        if event.outputs is None:
            bare = Served(event.model, event.version, event.rows, None, None, event.latencies_ms, event.errors)
            self._failed.append(bare)
        else:
            self._rows += event.rows
            self._errors += event.errors
            self._latencies.extend(event.latencies_ms)
        if len(self._latencies) + len(self._failed) > MAX_UNCOUNTED:
            self._overflow = self._overflow or Traffic()
            self._fold(self._overflow)
        if event.inputs is None or event.outputs is None:
            return 0
        size = sum(array.nbytes for array in event.inputs.values())
        size += sum(array.nbytes for array in event.outputs.values())
        if size > room_bytes:
            self.skipped += event.rows
            return 0
        self.queued_bytes += size
        self.batches.append((event.inputs, event.outputs, event.rows))
        return size

    def count_traffic(self, traffic: Traffic) -> None:
        """Move the requests noted into ``traffic``."""
        if self._overflow is not None:
            traffic.merge(self._overflow)
            self._overflow = None
        self._fold(traffic)

    def _fold(self, traffic: Traffic) -> None:
        if (
            self._rows or self._errors or self._latencies
        ):  # all answered batches at once: the model and version are moot
            traffic.observe(Served("", "", self._rows, None, {}, self._latencies, self._errors))
        for event in self._failed:
            traffic.observe(event)
        self._rows, self._errors, self._latencies, self._failed = 0, 0, [], []


class OpenWindow:
    """Traffic and feature sketches of one version since ``started_at``; the features of ``max_rows_per_s`` at most.

    ``handover`` belongs to the event loop until it is swapped; ``traffic`` and ``sketches`` to the observer's thread.
    """

    def __init__(self, model: str, version: str, started_at: float, max_rows_per_s: float) -> None:
        self.model = model
        self.version = version
        self.started_at = started_at
        self.handover = Handover()
        self.traffic = Traffic()
        self.sketches: FeatureSketches | None = None
        self.skipped = 0
        self._pace = self._room = max_rows_per_s
        self._refilled = started_at

    def note(self, event: Served, now: float, room_bytes: float) -> int:
        """Take note of a batch ``now``; see :meth:`Handover.note`."""
        if self._room < self._pace:
            self._room = min(self._pace, self._room + max(0.0, now - self._refilled) * self._pace)
        self._refilled = now
        held = self.handover.note(event, room_bytes if self._room > 0 else 0)
        if held:
            self._room -= event.rows
        return held

    def swap(self) -> Handover:
        """Give what was noted so far, and start afresh."""
        given, self.handover = self.handover, Handover()
        return given

    def count(self, given: Handover, features: Sequence[Feature] | None) -> None:
        """Count what was noted; ``features`` is ``None`` if there is no baseline to count by."""
        given.count_traffic(self.traffic)
        self.skipped += given.skipped
        if self.sketches is None and features is not None:
            self.sketches = FeatureSketches(features)
        if self.sketches is not None:
            self.sketches.skipped = self.skipped
            for inputs, outputs, rows in joined(given.batches):
                self.sketches.update(inputs, outputs, rows)

    @property
    def counted(self) -> int:
        """Rows whose features were counted."""
        return self.sketches.rows if self.sketches is not None else 0


def joined(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same rows in fewer, larger batches: counting costs per batch more than per row."""
    alike: defaultdict[object, list[Batch]] = defaultdict(list)
    for batch in batches:
        alike[_shape(batch[0]), _shape(batch[1])].append(batch)
    for group in alike.values():
        for chunk in _chunks(group):
            inputs, outputs, rows = zip(*chunk, strict=True)
            yield _concatenated(inputs), _concatenated(outputs), sum(rows)


def _shape(tensors: Tensors) -> tuple[object, ...]:
    return tuple((name, array.shape[1:], array.dtype) for name, array in sorted(tensors.items()))


def _chunks(batches: list[Batch]) -> Iterator[list[Batch]]:
    chunk: list[Batch] = []
    rows = 0
    for batch in batches:
        if chunk and rows + batch[2] > _JOIN_ROWS:
            yield chunk
            chunk, rows = [], 0
        chunk.append(batch)
        rows += batch[2]
    yield chunk


def _concatenated(parts: Sequence[Tensors]) -> dict[str, Tensor]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
