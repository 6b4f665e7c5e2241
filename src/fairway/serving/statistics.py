"""The protocol's statistics of one version: counts, and nanoseconds, since it was loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from fairway.serving.batching import Batch
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
    queue_s, input_s, infer_s, output_s : float
        Over successful requests: waiting, being joined with others, in the engine, being cut apart again. Each request is
        charged all of the call that it was part of.
    batches : dict of int to BatchSize
        By rows per engine call; beyond 256 different sizes, the next power of two.
    last : float
        When the last engine call ended, in seconds since 1970.
    """

    success: int = 0
    success_s: float = 0.0
    fail: int = 0
    fail_s: float = 0.0
    inferred_rows: int = 0
    executions: int = 0
    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0
    last: float = 0.0
    batches: dict[int, BatchSize] = {}

    def add(self, batch: Batch, latency_s: float) -> None:
        """Count one engine call; ``latency_s`` is the sum over the requests that it completed."""
        self.last = time.time()
        requests = len(batch.latencies_s)
        run = batch.run
        if batch.failures:
            self.fail += requests
            self.fail_s += latency_s
        else:
            self.success += requests
            self.success_s += latency_s
            # a request's wait ends where its call starts; one that was cut was in the engine before its last call
            self.queue_s += latency_s - requests * (batch.ended - run.started) - batch.earlier_s
            self.input_s += requests * run.input_s
            self.infer_s += requests * run.infer_s + batch.earlier_s
            self.output_s += requests * run.output_s
        if run.outputs is not None:
            self.executions += 1
            self.inferred_rows += batch.rows
            size = self.batches.get(batch.rows) or self._size(batch.rows)
            size.count += 1
            size.input_s += run.input_s
            size.infer_s += run.infer_s
            size.output_s += run.output_s

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
        "last_inference": int(own.last * 1e3),
        "inference_count": own.inferred_rows,
        "execution_count": own.executions,
        "inference_stats": {
            "success": _duration(own.success + stats.cache_hits, own.success_s + stats.cache_hit_ns / 1e9),
            "fail": _duration(own.fail, own.fail_s),
            "queue": _duration(own.success, own.queue_s),
            "compute_input": _duration(own.success, own.input_s),
            "compute_infer": _duration(own.success, own.infer_s),
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
