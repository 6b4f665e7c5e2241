"""Counts and times of a server, kept as plain numbers on the event loop and turned into Prometheus metrics on demand.

``prometheus_client``'s own counters lock and dispatch on every call, which costs more than a small inference; a custom
collector costs nothing between scrapes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from fairway.core.errors import FairwayError
from fairway.core.events import EventSink, Served
from fairway.core.tensors import Tensors
from fairway.serving.batches import Batch
from fairway.serving.statistics import InferStatistics
from fairway.serving.status import is_fault_of_server

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from fairway.serving.shared_metrics import Gather

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """Counts per bucket; ``bounds`` are inclusive upper ends."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[dict[str, str], float, float]] = {}

    def exemplify(self, value: float, trace_id: str, span_id: str) -> None:
        """The trace of a value that is counted, kept until the next one of its bucket."""
        labels = {"trace_id": trace_id, "span_id": span_id}
        self.exemplars[bisect_left(self.bounds, value)] = (labels, value, time.time())

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> float:
        """Count each value, and give their sum."""
        if not values:
            return 0.0
        bounds, counts = self.bounds, self.counts
        low, high = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if low == high:  # of one batch, most often
            counts[low] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        total = sum(values)
        self.total += total
        return total

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus has them."""
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class VersionStats:
    """One version's numbers. The scheduler's listener: it passes every batch on to the event sink.

    Parameters
    ----------
    model, version : str
    sink : EventSink or None

    Attributes
    ----------
    infer : InferStatistics
    cache_hits, cache_misses : int
        Requests that found their answer in the cache, or did not; the cache counts them.
    cache_hit_ns, cache_miss_ns : int
        Nanoseconds that looking up, or storing, took.
    """

    def __init__(self, model: str, version: str, sink: EventSink | None = None, *, raw_differs: bool = False) -> None:
        self.model = model
        self.version = version
        self.requests = 0
        self.rows = 0
        self.errors: Counter[str] = Counter()
        self.seconds = Histogram(SECONDS)
        self.engine_seconds = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.load_s = 0.0
        self.infer = InferStatistics()
        self.cache_hits = self.cache_hit_ns = self.cache_misses = self.cache_miss_ns = 0
        self.queue: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._sink = sink
        self._raw_differs = raw_differs

    def ran(self, batch: Batch) -> None:
        """One engine call ended."""
        self.requests += len(batch.latencies_s)
        self.rows += batch.rows
        self.batch_rows.observe(batch.rows)
        self.engine_seconds.observe(batch.took_s)
        self.infer.add(batch, self.seconds.observe_all(batch.latencies_s))
        for error in batch.failures:
            self.errors[error.code] += 1
        if self._sink is not None:
            self._sink.served(self._served(batch))

    def hit(self, feed: Tensors, answer: Tensors, rows: int, raw: bool, took_s: float) -> None:
        """One request that was answered without a run of its own."""
        self.requests += 1
        self.cache_hits += 1
        self.cache_hit_ns += round(took_s * 1e9)
        self.seconds.observe(took_s)
        if self._sink is not None:
            shown = not (raw and self._raw_differs)
            inputs, outputs = (feed, answer) if shown else (None, None)
            self._sink.served(Served(self.model, self.version, rows, inputs, outputs, [took_s * 1e3]))

    def missed(self, took_s: float) -> None:
        """One request that the cache did not know."""
        self.cache_misses += 1
        self.cache_miss_ns += round(took_s * 1e9)

    def refused(self, error: FairwayError, waited_s: float | None = None) -> None:
        """One request that got no engine call: after ``waited_s`` in the queue, or ``None`` if it was not accepted."""
        self.requests += 1
        self.errors[error.code] += 1
        if waited_s is not None:
            self.infer.failed(waited_s)
        if self._sink is not None and is_fault_of_server(error):
            self._sink.served(Served(self.model, self.version, 0, None, None, (), errors=1))

    def _served(self, batch: Batch) -> Served:
        shown = not (batch.raw and self._raw_differs)  # raw tensors are not the features that the baseline describes
        return Served(
            self.model,
            self.version,
            batch.rows,
            batch.run.feed if shown else None,
            batch.run.outputs if shown else None,
            [seconds * 1e3 for seconds in batch.latencies_s],
            errors=sum(map(is_fault_of_server, batch.failures)),
        )


class Telemetry:
    """All versions' numbers, and those of requests that never reached one. A Prometheus collector."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], VersionStats] = {}
        self.rejected: Counter[str] = Counter()
        self.ready: Callable[[], bool] = lambda: False
        self.gather: Gather | None = None
        """Asks for the counts of all workers, where there are several."""
        self.traces: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
        """Traces exported, those that the collector did not take, and requests above the limit."""
        self._started = time.time()

    def register(self, registry: CollectorRegistry) -> None:
        """Make these numbers, and the process's memory and CPU, part of ``registry``."""
        from prometheus_client import ProcessCollector

        registry.register(self)
        ProcessCollector(registry=registry)

    def collect(self) -> Iterator[Metric]:
        """Called by Prometheus at each scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield GaugeMetricFamily(
            "fairway_ready", "Whether the server is ready (1) or not (0)", value=float(self.ready())
        )
        rejected = CounterMetricFamily(
            "fairway_rejected_requests", "Requests refused before any version was chosen", labels=["code"]
        )
        for code, count in self.rejected.items():
            rejected.add_metric([code], count)
        yield rejected
        exported, lost, over = self.traces()
        yield CounterMetricFamily("fairway_traces_exported", "Traces that the collector took", value=exported)
        dropped = CounterMetricFamily("fairway_traces_dropped", "Traces that did not reach it", labels=["reason"])
        dropped.add_metric(["not_exported"], lost)
        dropped.add_metric(["over_limit"], over)
        yield dropped
        yield from self._counters()
        yield from self._gauges()
        yield from self._histograms()

    def _counters(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily

        requests = CounterMetricFamily("fairway_infer_requests", "Inference requests answered", labels=_LABELS)
        rows = CounterMetricFamily("fairway_infer_rows", "Rows that an engine ran", labels=_LABELS)
        errors = CounterMetricFamily(
            "fairway_infer_errors", "Inference requests answered with an error", labels=[*_LABELS, "code"]
        )
        for labels, stats in self.versions.items():
            requests.add_metric(labels, stats.requests)
            rows.add_metric(labels, stats.rows)
            for code, count in stats.errors.items():
                errors.add_metric([*labels, code], count)
        return requests, rows, errors

    def _gauges(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        waiting = GaugeMetricFamily("fairway_queue_requests", "Requests waiting for an engine", labels=_LABELS)
        waiting_rows = GaugeMetricFamily("fairway_queue_rows", "Rows waiting for an engine", labels=_LABELS)
        load = GaugeMetricFamily("fairway_model_load_seconds", "Time to verify, load and warm up", labels=_LABELS)
        ready = GaugeMetricFamily("fairway_model_ready", "Versions that can answer", labels=_LABELS)
        for labels, stats in self.versions.items():
            queued, queued_rows = stats.queue()
            waiting.add_metric(labels, queued)
            waiting_rows.add_metric(labels, queued_rows)
            load.add_metric(labels, stats.load_s)
            ready.add_metric(labels, 1)
        return waiting, waiting_rows, load, ready

    def _histograms(self) -> Iterable[Metric]:
        from prometheus_client.core import HistogramMetricFamily
        from prometheus_client.samples import Exemplar

        seconds = HistogramMetricFamily(
            "fairway_infer_duration_seconds", "From decoded request to answer", labels=_LABELS
        )
        engine = HistogramMetricFamily("fairway_engine_duration_seconds", "One engine call", labels=_LABELS)
        rows = HistogramMetricFamily("fairway_batch_rows", "Rows per engine call", labels=_LABELS)
        for labels, stats in self.versions.items():
            exemplars = {n: Exemplar(*exemplar) for n, exemplar in stats.seconds.exemplars.items()}
            buckets = [
                (*bucket, exemplars[n]) if n in exemplars else bucket
                for n, bucket in enumerate(stats.seconds.buckets())
            ]
            seconds.add_metric(labels, buckets, stats.seconds.total)
            engine.add_metric(labels, stats.engine_seconds.buckets(), stats.engine_seconds.total)
            rows.add_metric(labels, stats.batch_rows.buckets(), stats.batch_rows.total)
        return seconds, engine, rows


_LABELS = ["model", "version"]
