"""What a version's calls will cost, and so how long its requests will take: learned from the calls before."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from fairway.serving.admission import Admission
from fairway.serving.batches import BatchingSettings
from fairway.serving.cost import BLOCKING_US, CostCurve
from fairway.serving.lengths import Length
from fairway.serving.queues import Piece

_MAX_CURVES = 64


class Forecast:
    """Cost curves of one version: of each signature by its thread's own time, and of all together by the clock.

    Parameters
    ----------
    settings : BatchingSettings
    curves : dict of signature to CostCurve, optional
        What warm-up learned.
    length : callable, optional
        The length to which a request's rows are padded when they run together. Then curves are over rows times length.

    Attributes
    ----------
    admission : Admission
        By the clock, of calls on threads.
    """

    def __init__(
        self, settings: BatchingSettings, curves: dict[Hashable, CostCurve] | None = None, length: Length | None = None
    ) -> None:
        self._settings = settings
        self._curves = curves if curves is not None else {}
        self.length = length
        self.admission = Admission(
            max_rows=settings.max_rows,
            max_wait_s=settings.max_queue_wait_s,
            max_batch=settings.max_batch,
            slots=settings.slots,
        )

    def curve(self, signature: Hashable) -> CostCurve:
        """The cost of calls with this signature, by the thread's own time, over their cells."""
        key = signature if self._settings.batching else None
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) >= _MAX_CURVES:
                del self._curves[next(iter(self._curves))]
            curve = self._curves[key] = CostCurve(BLOCKING_US)
        return curve

    def cells(self, pieces: Sequence[Piece]) -> int:
        """What the cost of a call grows with: its rows, each padded to the longest where the bundle pads."""
        rows = pieces[0].rows if len(pieces) == 1 else sum([piece.rows for piece in pieces])
        return rows if self.length is None else rows * max(self.length(piece.feed) for piece in pieces)

    def call_s(self, rows: int, signature: Hashable) -> float:
        """Seconds of one call, 0 if unknown: by the clock once a batch ran on a thread; else by the thread's own time."""
        us = self.admission.curve.expect(rows)
        if us == math.inf and self.length is None:
            us = self.curve(signature).expect(rows)
        return us / 1e6 if us < math.inf else 0.0

    def wait_s(self, rows: int, signature: Hashable) -> float:
        """Seconds until so many rows have run, 0 if unknown."""
        if not rows:
            return 0.0
        if self.admission.curve.expect(1) < math.inf:
            return self.admission.wait_s(rows)
        calls = math.ceil(rows / self._settings.max_batch) / self._settings.slots
        return calls * self.call_s(self._settings.max_batch, signature)

    def finish_s(self, ahead: int, rows: int, signature: Hashable) -> float:
        """Seconds until the last of ``rows`` rows should be answered, with ``ahead`` rows waiting before it."""
        full = ahead // self._settings.max_batch * self._settings.max_batch  # the rest shares its batch
        last = min(ahead - full + rows, self._settings.max_batch)
        return self.wait_s(full, signature) + self.call_s(last, signature)

    def retry_s(self, rows: int, signature: Hashable) -> float:
        """When to come back where so many rows are waiting: when they should have run."""
        wait_s = self.wait_s(rows, signature)
        return min(max(wait_s, 0.1), 60.0) if wait_s else 1.0
