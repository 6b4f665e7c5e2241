"""Many rounds of one measurement, as one number with its interval; and two candidates compared round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

from fairway.core.metrics import Measurement, difference

ENOUGH = 5
"""Rounds from which the median's own interval is used: of fewer, even the extremes cover less than 90 %."""


def order_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Low, high and confidence of the median's distribution-free interval: the narrowest with 90 % coverage or more.

    References
    ----------
    H. A. David, H. N. Nagaraja, "Order Statistics", 3rd ed., 2003, sec. 7.1.

    Examples
    --------
    >>> order_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    (1.0, 5.0, 0.9375)
    """
    ordered, n = sorted(values), len(values)
    left_out, missed = 0, 2 * 0.5**n
    while (wider := missed + 2 * math.comb(n, left_out + 1) * 0.5**n) <= 0.1:
        left_out, missed = left_out + 1, wider
    return ordered[left_out], ordered[n - 1 - left_out], 1 - missed


def combine(rounds: Sequence[Measurement]) -> Measurement:
    """One measurement from several rounds of it: the median, and an interval that holds the spread between rounds.

    An error in any round is the answer (a candidate that fails now and then is not good), and so is want of data. Readings
    without intervals have one from :data:`ENOUGH` rounds on.
    """
    first = rounds[0]
    if useless := _useless(rounds):
        return useless
    values = [m.value for m in rounds]
    if len(rounds) == 1 or (_exact(rounds) and len(set(values)) == 1):
        return first
    total, value = sum(m.n for m in rounds), median(values)
    if len(rounds) >= ENOUGH:
        low, high, confidence = order_interval(values)
        method = f"median of {len(rounds)} interleaved rounds, order statistics"
    elif _exact(rounds) or not all(m.known for m in rounds):
        return Measurement.bare(first.metric, value, _too_few(len(rounds)), n=total, at_rps=first.at_rps)
    else:
        low, high = min(m.low for m in rounds), max(m.high for m in rounds)
        confidence = min(m.confidence for m in rounds)
        method = f"median of {len(rounds)} interleaved rounds, widest of their intervals"
    return msgspec.structs.replace(
        first, value=value, low=low, high=high, confidence=confidence, n=total, method=method
    )


def compare(candidate: Sequence[Measurement], other: Sequence[Measurement], versus: str) -> Measurement:
    """Candidate minus other. Rounds are paired, so that what slows the whole machine down for a while cancels out."""
    if useless := _useless((*candidate, *other)):
        return msgspec.structs.replace(useless, versus=versus)
    pairs = list(zip(candidate, other, strict=False))
    ours, theirs = (combine([pair[side] for pair in pairs]) for side in (0, 1))
    gaps, n = [one.value - another.value for one, another in pairs], sum(one.n for one, _ in pairs)
    if len(pairs) < ENOUGH and not (ours.known and theirs.known):
        reason = _too_few(len(pairs))
        return Measurement.bare(ours.metric, median(gaps), reason, n=n, versus=versus, at_rps=ours.at_rps)
    if len(pairs) < ENOUGH:
        return difference(ours, theirs, versus)
    low, high, confidence = order_interval(gaps)
    if len(set(gaps)) == 1 and _exact([m for pair in pairs for m in pair]):
        confidence = 1.0  # sizes of files, say
    return msgspec.structs.replace(
        candidate[0],
        value=median(gaps),
        low=low,
        high=high,
        confidence=confidence,
        n=n,
        versus=versus,
        method=f"median difference of {len(gaps)} paired rounds, order statistics",
    )


def _exact(rounds: Sequence[Measurement]) -> bool:
    return all(m.confidence == 1.0 for m in rounds)


def _too_few(rounds: int) -> str:
    return f"{ENOUGH} rounds of one reading each have one, this is {rounds}; raise [optimize] repeats or time_budget"


def _useless(rounds: Sequence[Measurement]) -> Measurement | None:
    """The first that says nothing, errors before want of data."""
    return min((m for m in rounds if not m.has_value), key=lambda m: not m.error, default=None)
