"""What live traffic says about a challenger: measurements that may be looked at any time, judged by the one gate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec

from fairway.core.gate import Gate, Limit, Outcome, Verdict, check_gate, judge
from fairway.core.metrics import Measurement
from fairway.rollout.sequences import Interval, difference_interval, quantile_interval, rate_interval
from fairway.rollout.settings import ReleaseSettings
from fairway.rollout.traffic import Traffic

QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
"""The latency metrics that live traffic can measure, and their ranks."""

LIVE = ("error_rate", *QUANTILES)
"""Every metric that live traffic can measure."""

ADVICE = "no limit in [gate] can be judged on live traffic; add one there, such as: error_rate = { max = 0.01 }"
METHOD = "confidence sequence"


class Tally(msgspec.Struct, frozen=True):
    """One version's traffic in a release, in numbers. Latencies in ms, ``None`` without any."""

    requests: int
    errors: int
    rows: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None

    @classmethod
    def of(cls, traffic: Traffic) -> Tally:
        """Sum up ``traffic``."""
        latencies = {name: traffic.latency_ms(q) if traffic.latencies else None for name, q in QUANTILES.items()}
        return cls(traffic.requests, traffic.errors, traffic.rows, **latencies)


class ReleaseVerdict(msgspec.Struct, frozen=True):
    """What live traffic says about a challenger so far.

    Attributes
    ----------
    verdict : Verdict
        By the limits that live traffic can measure. Its error rates hold over the whole watch.
    judged, elsewhere : tuple of str
        The gate's bounds that were judged here, and those that are judged at evaluation.
    champion, challenger : Tally
    alpha : float
        Bound on the probability that a challenger that keeps every limit is ever failed.
    """

    verdict: Verdict
    judged: tuple[str, ...]
    elsewhere: tuple[str, ...]
    champion: Tally
    challenger: Tally
    alpha: float

    @property
    def outcome(self) -> Outcome:
        """The verdict's outcome."""
        return self.verdict.outcome

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons that decided the outcome."""
        return self.verdict.reasons if self.judged else (ADVICE,)

    def evidence(self) -> dict[str, Any]:
        """As JSON data, for the audit trail; an interval's open end is ``None``."""
        data: dict[str, Any] = _finite(msgspec.to_builtins(self))
        return data | {"reasons": list(self.reasons)}


def analyse(gate: Gate, champion: Traffic, challenger: Traffic, *, settings: ReleaseSettings) -> ReleaseVerdict:
    """Judge a challenger by its live traffic so far. Pure; may be called after every request.

    With ``K`` bounds to judge, each gets an interval that misses the truth with probability at most ``alpha / K``, ever. So
    a challenger that keeps every limit is ever failed with probability at most ``alpha``, and one that breaks a limit is ever
    passed with probability at most ``alpha / K``, however often and until whenever anybody looks.

    Parameters
    ----------
    gate : mapping of metric name to Limit
        Bounds that live traffic cannot measure are listed in ``elsewhere`` and not judged.
    champion, challenger : Traffic
        Since the release started: both took calls in the same time, routed by a hash of the caller.
    settings : ReleaseSettings
        For ``alpha``.

    Raises
    ------
    InvalidConfig
        If the gate is malformed.

    Examples
    --------
    >>> champion, challenger = Traffic(), Traffic()
    >>> champion.add(latencies_ms=[1.0] * 9000, errors=9)
    >>> challenger.add(latencies_ms=[1.0] * 950, errors=50)
    >>> found = analyse({"error_rate": Limit(max=0.01)}, champion, challenger, settings=ReleaseSettings())
    >>> found.outcome, found.reasons[0]
    (<Outcome.FAILED: 'failed'>, 'error_rate is 0.05 [0.02872, 0.07924], max 0.01')
    """
    check_gate(gate)
    live, elsewhere = split_gate(gate)
    judged = tuple(bounds_of(live))
    each = settings.alpha / max(1, len(judged))
    measured = [m for name, limit in live.items() for m in _measure(name, limit, champion, challenger, each)]
    return ReleaseVerdict(
        verdict=judge(live, measured, champion=()),
        judged=judged,
        elsewhere=tuple(bounds_of(elsewhere)),
        champion=Tally.of(champion),
        challenger=Tally.of(challenger),
        alpha=settings.alpha,
    )


def split_gate(gate: Gate) -> tuple[dict[str, Limit], dict[str, Limit]]:
    """The bounds that live traffic can measure, and all others. Live traffic knows no slices and no labels.

    Examples
    --------
    >>> gate = {"accuracy_score": Limit(min=0.9), "error_rate": Limit(max=0.01, slice_max=0.02)}
    >>> [list(bounds_of(part)) for part in split_gate(gate)]
    [['error_rate max 0.01'], ['accuracy_score min 0.9', 'error_rate slice_max 0.02']]
    """
    live: dict[str, Limit] = {}
    elsewhere: dict[str, Limit] = {}
    for name, limit in gate.items():
        here = ("min", "max", "max_rise") if name in LIVE else ()
        for kept, chosen in ((live, True), (elsewhere, False)):
            part = {bound: None for bound in _BOUNDS if (bound in here) is not chosen}
            narrowed = msgspec.structs.replace(limit, **part)
            if _set_bounds(narrowed):
                kept[name] = narrowed
    return live, elsewhere


def bounds_of(gate: Gate) -> Iterator[str]:
    """Each bound in words, such as ``error_rate max 0.01``."""
    for name, limit in gate.items():
        for bound in _set_bounds(limit):
            yield f"{name} {bound} {getattr(limit, bound):g}"


_BOUNDS = ("min", "max", "slice_min", "slice_max", "max_drop", "max_rise")


def _set_bounds(limit: Limit) -> list[str]:
    return [bound for bound in _BOUNDS if getattr(limit, bound) is not None]


def _measure(name: str, limit: Limit, champion: Traffic, challenger: Traffic, alpha: float) -> Iterator[Measurement]:
    """The challenger's measurement, and its difference to the champion where a bound asks for it."""
    n = _observations(name, challenger)
    if n and (limit.min is not None or limit.max is not None):
        yield _measurement(name, _value(name, challenger), _interval(name, challenger, alpha), alpha=alpha, n=n)
    fewer = min(n, _observations(name, champion))
    if fewer and limit.max_rise is not None:
        rise = difference_interval(_interval(name, challenger, alpha / 2), _interval(name, champion, alpha / 2))
        value = _value(name, challenger) - _value(name, champion)
        yield _measurement(name, value, rise, alpha=alpha, n=fewer, versus="champion")


def _observations(name: str, traffic: Traffic) -> int:
    return traffic.latencies if name in QUANTILES else traffic.requests


def _value(name: str, traffic: Traffic) -> float:
    return traffic.latency_ms(QUANTILES[name]) if name in QUANTILES else traffic.errors / traffic.requests


def _interval(name: str, traffic: Traffic, alpha: float) -> Interval:
    if name not in QUANTILES:
        return rate_interval(traffic.errors, traffic.requests, alpha)
    return quantile_interval(
        traffic.latency_ms, traffic.latencies, QUANTILES[name], alpha, rank_error=traffic.rank_error
    )


def _measurement(name: str, value: float, ends: Interval, *, alpha: float, n: int, versus: str = "") -> Measurement:
    # Each end errs with probability up to alpha, both together with no more: 1 - 2 alpha is what `judge` halves again.
    return Measurement(name, value, ends.low, ends.high, 1 - 2 * alpha, n, versus=versus, method=METHOD)


def _finite(data: Any) -> Any:
    """``data`` with ``None`` for numbers that JSON cannot say."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
