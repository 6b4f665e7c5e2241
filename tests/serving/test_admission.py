"""Overload: what is accepted is answered in time, and what is refused is refused at once."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from fairway.serving.admission import Admission

BATCH = 8
CALL_S = 0.05
CAPACITY = BATCH / CALL_S  # requests of one row per second


class Outcome(NamedTuple):
    """Of a simulated server: requests answered in time per second, and waits of the accepted in seconds."""

    goodput: float
    latencies: list[float]
    refused: int


def overload(
    admission: Admission | None, *, load: float, seconds: float, limit_s: float, call_s: Callable[[float], float]
) -> Outcome:
    """One engine, requests of one row at ``load`` times the capacity, each worth something for ``limit_s`` seconds."""
    rng = random.Random(0)
    queue: deque[float] = deque()
    latencies: list[float] = []
    refused = 0
    events: list[tuple[float, int]] = [(0.0, 0)]
    busy: tuple[float, list[float]] | None = None
    while events:
        now, kind = heapq.heappop(events)
        if kind == 0:
            if now < seconds:
                heapq.heappush(events, (now + rng.expovariate(load * CAPACITY), 0))
            if admission is not None and queue and len(queue) + 1 > admission.room:
                refused += 1
            else:
                queue.append(now)
        else:
            assert busy is not None
            started, batch = busy
            latencies += [now - arrived for arrived in batch]
            if admission is not None:
                waited = started - batch[0]
                admission.ran(rows=len(batch), took_s=now - started, waited_s=waited, now=now)
            busy = None
        if busy is None and queue:
            busy = (now, [queue.popleft() for _ in range(min(len(queue), BATCH))])
            heapq.heappush(events, (now + call_s(now), 1))
    return Outcome(sum(latency <= limit_s for latency in latencies) / seconds, latencies, refused)


def admission(max_wait_s: float = 0.5) -> Admission:
    return Admission(max_rows=100_000, max_wait_s=max_wait_s, max_batch=BATCH, slots=1)


def test_under_three_times_the_load_that_an_engine_can_take_goodput_stays_near_capacity() -> None:
    outcome = overload(admission(), load=3, seconds=60, limit_s=1, call_s=lambda _: CALL_S)
    assert outcome.goodput > 0.95 * CAPACITY
    assert np.percentile(outcome.latencies, 99) < 0.5 + 2 * CALL_S
    without = overload(None, load=3, seconds=60, limit_s=1, call_s=lambda _: CALL_S)
    assert without.goodput < 0.1 * CAPACITY  # everybody waits until nobody cares


def test_below_capacity_nobody_is_refused() -> None:
    outcome = overload(admission(), load=0.8, seconds=60, limit_s=1, call_s=lambda _: CALL_S)
    assert outcome.refused == 0


def test_an_engine_that_becomes_slower_gets_a_shorter_queue_and_a_longer_one_when_it_recovers() -> None:
    def call_s(now: float) -> float:
        return 4 * CALL_S if 20 <= now < 40 else CALL_S

    outcome = overload(admission(), load=3, seconds=60, limit_s=1, call_s=call_s)
    at_most = CAPACITY * (20 + 20 / 4 + 20) / 60
    assert outcome.goodput > 0.85 * at_most
    assert np.percentile(outcome.latencies, 99) < 2.0


def test_an_erratic_engine_is_held_to_the_wait_by_what_was_seen() -> None:
    """The learned cost is a mean: where calls vary a hundredfold, the waits themselves must bound the queue."""
    rng = random.Random(1)
    outcome = overload(
        admission(), load=3, seconds=120, limit_s=1, call_s=lambda _: CALL_S * (0.5 if rng.random() < 0.99 else 20)
    )
    assert outcome.goodput > 0.6 * CAPACITY
    assert np.percentile(outcome.latencies, 95) < 2.5


def test_the_room_is_never_less_than_a_batch_nor_more_than_the_limit() -> None:
    found = Admission(max_rows=100, max_wait_s=0.1, max_batch=BATCH, slots=1)
    assert found.room == 100
    for now in range(50):
        found.ran(rows=BATCH, took_s=10.0, waited_s=20.0, now=float(now))
    assert found.room == BATCH
    for now in range(50, 1500):
        found.ran(rows=BATCH, took_s=1e-5, waited_s=0.0, now=float(now))
    assert found.room == 100


def test_waits_that_were_too_long_count_once_per_wait() -> None:
    """All that was accepted before a decrease still comes: it must not shrink the room to nothing."""
    found = Admission(max_rows=1000, max_wait_s=1.0, max_batch=BATCH, slots=1)
    for _ in range(10):
        found.ran(rows=BATCH, took_s=1e-4, waited_s=2.0, now=5.0)
    assert found.room == 700


def test_more_slots_hold_more() -> None:
    one, four = (Admission(max_rows=10_000, max_wait_s=1.0, max_batch=BATCH, slots=slots) for slots in (1, 4))
    for found in (one, four):
        for _ in range(5):
            found.ran(rows=BATCH, took_s=0.1, waited_s=0.0, now=0.0)
    assert four.room == 4 * one.room
    assert four.wait_s(80) == pytest.approx(one.wait_s(80) / 4)
