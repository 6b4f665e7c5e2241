"""How fast, how reliable, how large and how hungry a bundle is when served: in fresh processes, through the serving core."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairway.bundle.format import Bundle
from fairway.core.extras import require
from fairway.core.latency import LatencyProfile
from fairway.core.metrics import Measurement
from fairway.serving.energy import CORE_WATTS
from fairway.serving.probe import Observed, Plan, Span
from fairway.serving.probes import observe_together
from fairway.serving.quantiles import quantile_interval, rate_interval
from fairway.serving.settings import ServeSettings

_QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
_SPANS = 10
_ENERGY = "energy_mj_per_request"
_AT_LOAD = (*_QUANTILES, "throughput_rps", "error_rate", "memory_mb")
_AT_START = ("load_ms", "first_request_ms")


class Performance(NamedTuple):
    """What was measured, and the whole distribution of latencies (``None`` if nothing could be)."""

    measurements: list[Measurement]
    latency: LatencyProfile | None


def measure_performance(
    bundle: Bundle,
    *,
    rps: float | None = None,
    seconds: float = 5.0,
    rows: int = 1,
    concurrency: int = 16,
    confidence: float = 0.95,
    seed: int = 0,
    processes: int = 1,
    saturate_s: float = 0.0,
    core_watts: float = CORE_WATTS,
    workers: int = 1,
    serving: ServeSettings | None = None,
    cores: int = 0,
    equal: float = 0.0,
) -> Performance:
    """Serve ``bundle`` in fresh processes, one after another, and measure it under load.

    Latency is counted from when a request was due, not from when it could be sent, so a server that stalls is charged for
    everyone who would have waited. It covers validation, queue and engine, not the network or JSON.

    Parameters
    ----------
    bundle : Bundle
    rps : float or None
        Offered load, in requests per second, with Poisson arrivals. ``None``: ``concurrency`` callers, each as fast as it is
        answered, which gives the largest throughput.
    seconds : float, default 5
        How long, over all processes. A 99th percentile needs 368 requests for a finite upper end at 95 % confidence.
    rows : int, default 1
        Per request, from the bundle's recorded samples, or made up where it has none.
    concurrency : int, default 16
    confidence : float, default 0.95
    seed : int, default 0
        Of the arrivals.
    processes : int, default 1
        Among which the load is divided. What happens once per process (load, first request, memory) has an interval from
        two processes on.
    saturate_s : float, default 0
        How long each process is then kept as busy as it can be, for the largest throughput and the energy; 0: neither.
    core_watts : float, default 12
        Of one busy core, for the estimate of energy where the processor's counters cannot be read.
    workers : int, default 1
        Processes that answer at the same time, as a server's workers do: the load is divided among them, and they count as
        one of ``processes``. Memory is that of one of them, the largest.
    serving : ServeSettings, optional
        Threads of a call, and limits of the model. By default those of the bundle.
    cores : int, default 0
        How many of the cores that this process may use they share; 0: all.
    equal : float, default 0
        The share of requests that equal an earlier one, where the server keeps answers; memory counts its cache as full.

    Returns
    -------
    Performance
        Of ``latency_p50_ms``, ``latency_p95_ms``, ``latency_p99_ms`` (order-statistic intervals; consecutive latencies of a
        loaded server are correlated, which makes them somewhat too narrow near saturation), ``throughput_rps`` and
        ``energy_mj_per_request`` (means of spans, Student's interval), ``error_rate`` (Clopper-Pearson), ``memory_mb``,
        ``load_ms``, ``first_request_ms`` (one reading per process, Student's interval), ``size_mb``. What could not be
        measured has ``error`` set.
    """
    part, each_rps = seconds / processes, None if rps is None else rps / workers
    size = Measurement.exact("size_mb", bundle.size_bytes / 1e6, method="sum of the bundle's files")
    saturating = bool(saturate_s) and rps is not None
    seen: list[Observed] = []
    for number in range(processes):
        callers, settings = max(1, concurrency // workers), serving or ServeSettings()
        plan = Plan(part, each_rps, rows, callers, seed, saturate_s, settings, cores, equal)
        seeds = range(seed + number * workers, seed + (number + 1) * workers)
        observed = observe_together(bundle, [msgspec.structs.replace(plan, seed=own) for own in seeds])
        if isinstance(observed, str):
            failed = [Measurement.failed(name, observed, at_rps=rps) for name in _AT_LOAD]
            failed += [Measurement.failed(name, observed) for name in (*_AT_START, *([_ENERGY] if saturate_s else []))]
            return Performance([*failed, size], None)
        seen.append(observed)
    spans = [span for each in seen for span in each.saturated]
    latencies = np.concatenate([np.array(each.latencies_ms, np.float64) for each in seen])
    failures = sum(each.failures for each in seen)
    measured = [
        *_latencies(latencies, failures, seen, confidence, rps),
        *([_sustained(spans, concurrency, confidence)] if saturating else []),
        _throughput(seen, confidence, part, rps),
        _errors(len(latencies), failures, confidence, rps),
        _once("memory_mb", [each.memory_mb for each in seen], "resident memory after the load", confidence, rps),
        _once("load_ms", [each.load_ms for each in seen], "one load each, warm-up included", confidence, log=True),
        _once("first_request_ms", [each.first_ms for each in seen], "after the load", confidence, log=True),
        *([_energy(spans, confidence, core_watts)] if saturate_s else []),
        size,
    ]
    return Performance(measured, LatencyProfile.of(latencies, at_rps=rps, failures=failures))


Array = NDArray[np.float64]


def _latencies(
    answered: Array, failures: int, seen: Sequence[Observed], confidence: float, rps: float | None
) -> list[Measurement]:
    """A request without an answer has no finite latency, so it counts as an infinite one."""
    ordered = np.concatenate([np.sort(answered), np.full(failures, math.inf)])
    why = next((each.first_failure for each in seen if each.first_failure), "")
    return [
        _latency(name, q, ordered, f"{failures} of {len(ordered)} requests failed: {why}", confidence, rps)
        for name, q in _QUANTILES.items()
    ]


def _latency(name: str, q: float, ordered: Array, failed: str, confidence: float, rps: float | None) -> Measurement:
    value, low, high = quantile_interval(ordered, q, confidence)
    if not math.isfinite(value):
        return Measurement.failed(name, failed, at_rps=rps)
    return Measurement(name, value, low, high, confidence, n=len(ordered), method="order statistics", at_rps=rps)


def _throughput(seen: Sequence[Observed], confidence: float, seconds: float, rps: float | None) -> Measurement:
    """The mean of ten equal spans of each process's time."""
    rates: list[float] = []
    for each in seen:
        counts, _ = np.histogram(each.finished_s, bins=_SPANS, range=(0.0, seconds))
        rates += (counts / (seconds / _SPANS)).tolist()
    answered = sum(len(each.finished_s) for each in seen)
    method = f"means of {len(rates)} spans"
    return _mean("throughput_rps", rates, confidence, n=answered, method=method, at_rps=rps)


def _sustained(spans: Sequence[Span], concurrency: int, confidence: float) -> Measurement:
    """As many as it takes."""
    answered = sum(span.answered for span in spans)
    if not answered:
        return Measurement.failed("throughput_rps", "no request was answered at full load")
    rates = [span.answered / span.seconds for span in spans]
    method = f"{concurrency} callers, each as fast as it is answered; means of {len(rates)} spans"
    return _mean("throughput_rps", rates, confidence, n=answered, method=method)


def _energy(spans: Sequence[Span], confidence: float, core_watts: float) -> Measurement:
    """By the processor's counters, or by the time that cores were busy."""
    answered = [span for span in spans if span.answered]
    if not answered:
        return Measurement.failed(_ENERGY, "no request was answered at full load")
    n = sum(span.answered for span in answered)
    counted = [1e3 * span.joules / span.answered for span in answered if span.joules is not None]
    if len(counted) == len(answered):
        method = f"the processor's counters (RAPL), all that runs on it included; means of {len(counted)} spans"
        return _mean(_ENERGY, counted, confidence, n=n, method=method)
    modeled = [1e3 * core_watts * span.cpu_s / span.answered for span in answered]
    method = (
        f"means of {len(modeled)} spans; approximate: an estimate, processor time × {core_watts:g} W per busy core, since "
        "the processor's energy counters cannot be read; the interval is that of the time alone"
    )
    return _mean(_ENERGY, modeled, confidence, n=n, method=method)


def _errors(answered: int, failures: int, confidence: float, rps: float | None) -> Measurement:
    n = answered + failures
    value, low, high = rate_interval(failures, n, confidence)
    if n == 0:
        return Measurement.failed("error_rate", "no request was sent; allow more seconds", at_rps=rps)
    return Measurement("error_rate", value, low, high, confidence, n=n, method="Clopper-Pearson", at_rps=rps)


def _once(
    name: str, values: Sequence[float], what: str, confidence: float, rps: float | None = None, *, log: bool = False
) -> Measurement:
    """What happens once in a process; ``log`` where it is spread by factors, as times are."""
    if len(values) == 1:
        reason = f"{what}, in one fresh process; two would tell how much it varies"
        return Measurement.bare(name, values[0], reason, n=1, at_rps=rps)
    method = f"{what}, in {len(values)} fresh processes"
    if not log:
        return _mean(name, values, confidence, n=len(values), method=method, at_rps=rps)
    found = _mean(
        name, np.log(values).tolist(), confidence, n=len(values), method=f"geometric mean; {method}", floor=-math.inf
    )
    return msgspec.structs.replace(
        found, value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high), at_rps=rps
    )


def _mean(
    name: str,
    values: Sequence[float],
    confidence: float,
    *,
    n: int,
    method: str,
    at_rps: float | None = None,
    floor: float = 0.0,
) -> Measurement:
    """A mean and Student's interval of it."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Measurement.unknown(name, "one span says nothing of how much they differ", at_rps=at_rps)
    student = float(require("scipy.stats", extra="evaluate").t.ppf((1 + confidence) / 2, count - 1))
    half = student * statistics.stdev(values) / math.sqrt(count)
    return Measurement(name, mean, max(floor, mean - half), mean + half, confidence, n=n, method=method, at_rps=at_rps)
