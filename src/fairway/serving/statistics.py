"""The protocol's statistics of one version: counts, and nanoseconds, since it was loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from fairway.serving.batches import Batch
    from fairway.serving.telemetry import VersionStats

MAX_BATCH_SIZES = 256


class BatchSize(msgspec.Struct):
    """Engine calls with one number of rows: how many, and the seconds that their parts took."""

    count: int = 0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0


class InferStatistics(msgspec.Struct):
    """What is added up after each engine call. Times are in seconds, on a monotonic clock.

    Attributes
    ----------
    success, success_s
        Requests that an engine answered, and their time from decoded request to answer.
    fail, fail_s
        Requests that were accepted and got an error.
    inferred_rows : int
        Of successful engine calls.
    call_s : float
        From the start of the call that answered a request to its answer, over successful requests; what is left of
        ``success_s`` is waiting.
    earlier_s : float
        In the engine before that call, for requests that were cut.
    input_s, infer_s, output_s : float
        Being joined with others, in the engine, being cut apart again: each request is charged all of its call.
    batches : dict of int to BatchSize
        By rows per successful engine call; beyond 256 different sizes, the next power of two.
    ended : float
        When the last engine call ended, on :func:`time.perf_counter`.
    """

    success: int = 0
    success_s: float = 0.0
    fail: int = 0
    fail_s: float = 0.0
    inferred_rows: int = 0
    call_s: float = 0.0
    earlier_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0
    batches: dict[int, BatchSize] = {}
    ended: float = 0.0
    _last_ms: int = 0
    _told: float = 0.0

    def add(self, batch: Batch, latency_s: float) -> None:
        """Count one engine call; ``latency_s`` is the sum over the requests that it completed."""
        run = batch.run
        requests = len(batch.latencies_s)
        self.ended = ended = batch.ended
        if batch.failures:
            self.fail += requests
            self.fail_s += latency_s
        else:
            self.success += requests
            self.success_s += latency_s
            self.call_s += requests * (ended - run.started)
            self.infer_s += requests * run.infer_s
            if run.input_s:
                self.input_s += requests * run.input_s
                self.output_s += requests * run.output_s
            if batch.earlier_s:
                self.earlier_s += batch.earlier_s
        if run.outputs is not None:
            rows = batch.rows
            self.inferred_rows += rows
            size = self.batches.get(rows) or self._size(rows)
            size.count += 1
            size.infer_s += run.infer_s
            if run.input_s:
                size.input_s += run.input_s
                size.output_s += run.output_s

    @property
    def last_ms(self) -> int:
        """When the last engine call ended, in milliseconds since 1970: told once for each, so that it does not waver."""
        if self._told != self.ended:
            self._told = self.ended
            self._last_ms = int((time.time() - (time.perf_counter() - self.ended)) * 1e3)
        return self._last_ms

    def failed(self, waited_s: float) -> None:
        """Count a request that was accepted and never ran."""
        self.fail += 1
        self.fail_s += waited_s

    def _size(self, rows: int) -> BatchSize:
        if len(self.batches) >= MAX_BATCH_SIZES:
            rows = 1 << (rows - 1).bit_length()
        return self.batches.setdefault(rows, BatchSize())


def statistics_of(stats: VersionStats) -> dict[str, Any]:
    """One entry of the protocol's ``model_stats``."""
    own = stats.infer
    return {
        "name": stats.model,
        "version": stats.version,
        "last_inference": own.last_ms,
        "inference_count": own.inferred_rows,
        "execution_count": sum(size.count for size in own.batches.values()),
        "inference_stats": {
            "success": _duration(own.success + stats.cache_hits, own.success_s + stats.cache_hit_ns / 1e9),
            "fail": _duration(own.fail, own.fail_s),
            "queue": _duration(own.success, own.success_s - own.call_s - own.earlier_s),
            "compute_input": _duration(own.success, own.input_s),
            "compute_infer": _duration(own.success, own.infer_s + own.earlier_s),
            "compute_output": _duration(own.success, own.output_s),
            "cache_hit": {"count": stats.cache_hits, "ns": stats.cache_hit_ns},
            "cache_miss": {"count": stats.cache_misses, "ns": stats.cache_miss_ns},
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(size.count, size.input_s),
                "compute_infer": _duration(size.count, size.infer_s),
                "compute_output": _duration(size.count, size.output_s),
            }
            for rows, size in sorted(own.batches.items())
        ],
        "memory_usage": [],
        "response_stats": {},
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": max(0, round(seconds * 1e9))}
