"""Many rounds of one measurement, as one number with its interval; and two candidates compared round by round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

from fairway.core.metrics import Measurement, difference

ENOUGH = 5
"""Rounds from which the median's own interval is used: below, no interval of order statistics has 90 % coverage. What has no
interval of its own (a time to load, say) then has the spread of its readings, and the little confidence that this has."""


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

    An error in any round is the answer (a candidate that fails now and then is not good), and so is want of data.
    """
    first = rounds[0]
    if useless := _useless(rounds):
        return useless
    exact = all(m.confidence == 1.0 for m in rounds)
    values = [m.value for m in rounds]
    if len(rounds) == 1 or (exact and len(set(values)) == 1):
        return first
    if len(rounds) >= ENOUGH:
        low, high, confidence = order_interval(values)
        method = f"median of {len(rounds)} interleaved rounds, order statistics"
    else:
        low, high = min(m.low for m in rounds), max(m.high for m in rounds)
        confidence = 1 - 2 * 0.5 ** len(rounds) if exact else min(m.confidence for m in rounds)
        spread = "their least and largest" if exact else "widest of their intervals"
        method = f"median of {len(rounds)} interleaved rounds, {spread}"
    total, value = sum(m.n for m in rounds), median(values)
    return msgspec.structs.replace(
        first, value=value, low=low, high=high, confidence=confidence, n=total, method=method
    )


def compare(candidate: Sequence[Measurement], other: Sequence[Measurement], versus: str) -> Measurement:
    """Candidate minus other. Rounds are paired, so that what slows the whole machine down for a while cancels out."""
    if useless := _useless((*candidate, *other)):
        return msgspec.structs.replace(useless, versus=versus)
    pairs = list(zip(candidate, other, strict=False))
    if len(pairs) < ENOUGH:
        ours, theirs = (combine([pair[side] for pair in pairs]) for side in (0, 1))
        return difference(ours, theirs, versus)
    gaps = [ours.value - theirs.value for ours, theirs in pairs]
    low, high, confidence = order_interval(gaps)
    if len(set(gaps)) == 1 and all(m.confidence == 1.0 for pair in pairs for m in pair):
        confidence = 1.0  # sizes of files, say
    return msgspec.structs.replace(
        candidate[0],
        value=median(gaps),
        low=low,
        high=high,
        confidence=confidence,
        n=sum(ours.n for ours, _ in pairs),
        versus=versus,
        method=f"median difference of {len(gaps)} paired rounds, order statistics",
    )


def _useless(rounds: Sequence[Measurement]) -> Measurement | None:
    """The first that says nothing, errors before want of data."""
    return min((m for m in rounds if not m.known), key=lambda m: not m.error, default=None)
