"""How fast, how reliable and how large a bundle is when served: measured in a fresh process, through the serving core."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys

import msgspec
import numpy as np

from fairway.bundle.format import Bundle
from fairway.core.metrics import Measurement
from fairway.serving.probe import Observed, Plan
from fairway.serving.quantiles import quantile_interval, rate_interval

_QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
_BATCHES = 10
_T_9 = {0.9: 1.833, 0.95: 2.262, 0.99: 3.250}
_MEASURED = (*_QUANTILES, "throughput_rps", "error_rate", "memory_mb", "load_ms")


def measure_performance(
    bundle: Bundle,
    *,
    rps: float | None = None,
    seconds: float = 5.0,
    rows: int = 1,
    concurrency: int = 16,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Measurement]:
    """Serve ``bundle`` in a fresh process and measure it under load.

    Latency is counted from when a request was due, not from when it could be sent, so a server that stalls is charged for
    everyone who would have waited. It covers validation, queue and engine, not the network or JSON.

    Parameters
    ----------
    bundle : Bundle
    rps : float or None
        Offered load, in requests per second, with Poisson arrivals. ``None``: ``concurrency`` callers, each as fast as it is
        answered, which gives the largest throughput.
    seconds : float, default 5
        How long. A 99th percentile needs 368 requests for a finite upper end at 95 % confidence.
    rows : int, default 1
        Per request, from the bundle's recorded samples, or made up where it has none.
    concurrency : int, default 16
    confidence : float, default 0.95
    seed : int, default 0
        Of the arrivals.

    Returns
    -------
    list of Measurement
        ``latency_p50_ms``, ``latency_p95_ms``, ``latency_p99_ms`` (order-statistic intervals; consecutive latencies of a
        loaded server are correlated, which makes them somewhat too narrow near saturation), ``throughput_rps`` (batch
        means), ``error_rate`` (Clopper-Pearson), ``memory_mb``, ``load_ms`` and ``size_mb`` (single readings). What could
        not be measured has ``error`` set.
    """
    plan = Plan(seconds, rps, rows, concurrency, seed)
    size = Measurement.exact("size_mb", bundle.size_bytes / 1e6, method="sum of the bundle's files")
    observed = _observe(bundle, plan)
    if isinstance(observed, str):
        return [*(Measurement.failed(name, observed, at_rps=rps) for name in _MEASURED), size]
    return [
        *_latencies(observed, confidence, rps),
        _throughput(observed, confidence, plan),
        _errors(observed, confidence, rps),
        Measurement.exact("memory_mb", observed.memory_mb, n=1, method="resident memory after the load", at_rps=rps),
        Measurement.exact("load_ms", observed.load_ms, n=1, method="one load in a fresh process, warm-up included"),
        size,
    ]


def _observe(bundle: Bundle, plan: Plan) -> Observed | str:
    """What was observed, or why nothing could be."""
    command = [sys.executable, "-m", "fairway.serving.probe", str(bundle.path.absolute())]
    limit_s = plan.seconds * 3 + 120
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(plan), capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the measuring process did not end within {limit_s:.0f} s"
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return f"the measuring process failed: {said[-1] if said else f'status {done.returncode}'}"
    try:
        return msgspec.json.decode(done.stdout, type=Observed)
    except msgspec.MsgspecError as error:
        return f"the measuring process ended without a result ({error}); measure again"


def _latencies(observed: Observed, confidence: float, rps: float | None) -> list[Measurement]:
    """A request without an answer has no finite latency, so it counts as an infinite one."""
    answered = np.sort(np.array(observed.latencies_ms, dtype=np.float64))
    ordered = np.concatenate([answered, np.full(observed.failures, math.inf)])
    return [_latency(name, q, ordered, observed, confidence, rps) for name, q in _QUANTILES.items()]


def _latency(
    name: str,
    q: float,
    ordered: np.ndarray[tuple[int], np.dtype[np.float64]],
    observed: Observed,
    confidence: float,
    rps: float | None,
) -> Measurement:
    value, low, high = quantile_interval(ordered, q, confidence)
    if not math.isfinite(value):
        return Measurement.failed(
            name, f"{observed.failures} of {len(ordered)} requests failed: {observed.first_failure}", at_rps=rps
        )
    return Measurement(name, value, low, high, confidence, n=len(ordered), method="order statistics", at_rps=rps)


def _throughput(observed: Observed, confidence: float, plan: Plan) -> Measurement:
    """The mean of ten equal spans, with Student's interval over them."""
    counts, _ = np.histogram(observed.finished_s, bins=_BATCHES, range=(0.0, plan.seconds))
    rates = (counts / (plan.seconds / _BATCHES)).tolist()
    mean = statistics.fmean(rates)
    half = _student(confidence) * statistics.stdev(rates) / math.sqrt(_BATCHES)
    return Measurement(
        "throughput_rps",
        mean,
        max(0.0, mean - half),
        mean + half,
        confidence,
        n=len(observed.finished_s),
        method=f"means of {_BATCHES} spans",
        at_rps=plan.rps,
    )


def _student(confidence: float) -> float:
    """Student's quantile for nine degrees of freedom; by Cornish-Fisher where it is not tabulated."""
    if confidence in _T_9:
        return _T_9[confidence]
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    v = _BATCHES - 1
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


def _errors(observed: Observed, confidence: float, rps: float | None) -> Measurement:
    n = len(observed.latencies_ms) + observed.failures
    value, low, high = rate_interval(observed.failures, n, confidence)
    if n == 0:
        return Measurement.failed("error_rate", "no request was sent; allow more seconds", at_rps=rps)
    return Measurement("error_rate", value, low, high, confidence, n=n, method="Clopper-Pearson", at_rps=rps)
