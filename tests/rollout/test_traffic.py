"""Traffic windows merge in any grouping, travel as bytes, and never crash a reader."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.core.errors import InvalidData, NewerFormat
from fairway.core.events import Served
from fairway.rollout.traffic import FORMAT, MAX_BYTES, SKETCH_K, Traffic

RANKS = (0.0, 0.01, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
latencies = st.lists(st.floats(0, 1e6, width=32), max_size=40)
windows = st.lists(st.tuples(latencies, st.integers(0, 5), st.integers(0, 100)), max_size=8)


def window(values: object = (), errors: int = 0, rows: int = 0) -> Traffic:
    traffic = Traffic()
    traffic.add(rows=rows, errors=errors, latencies_ms=np.asarray(values, np.float32))
    return traffic


def counts(traffic: Traffic) -> tuple[int, int, int, int]:
    return traffic.requests, traffic.errors, traffic.rows, traffic.latencies


def rank_distance(values: list[float], found: float, rank: float) -> float:
    """How far ``rank`` is from the ranks that ``found`` has among sorted ``values``."""
    low, high = bisect_left(values, found) / len(values), bisect_right(values, found) / len(values)
    return max(low - rank, rank - high, 0.0)


@given(windows, st.integers(0, 8), st.randoms(use_true_random=False))
def test_windows_merge_alike_in_any_grouping_and_order(
    parts: list[tuple[list[float], int, int]], cut: int, rng: random.Random
) -> None:
    made = [window(*part) for part in parts]
    shuffled = rng.sample(made, len(made))
    straight = Traffic.merged(made)
    grouped = Traffic.merged([Traffic.merged(shuffled[:cut]), Traffic.merged(shuffled[cut:])])
    assert counts(straight) == counts(grouped)
    if straight.latencies:
        assert [straight.latency_ms(r) for r in RANKS] == [grouped.latency_ms(r) for r in RANKS]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_large_windows_merge_within_the_rank_error(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.lognormal(1, 1, 30_000).astype(np.float32)
    merged = Traffic.merged(window(part) for part in np.array_split(values, parts))
    assert 0 < merged.rank_error < 0.003
    ordered = sorted(values.tolist())
    assert max(rank_distance(ordered, merged.latency_ms(rank), rank) for rank in RANKS) <= merged.rank_error


def test_quantiles_are_exact_until_the_sketch_is_full() -> None:
    values = np.random.default_rng(0).permutation(SKETCH_K).astype(np.float32)
    traffic = window(values)
    assert traffic.rank_error == 0
    assert [traffic.latency_ms((i + 0.5) / SKETCH_K) for i in range(SKETCH_K)] == list(range(SKETCH_K))


def test_merging_leaves_the_merged_window_as_it_was() -> None:
    one, other = window([1.0], rows=1), window([2.0], errors=1, rows=2)
    one.merge(other)
    assert counts(one) == (3, 1, 3, 2)
    assert counts(other) == (2, 1, 2, 1)


def test_an_empty_window_has_no_quantile() -> None:
    assert np.isnan(Traffic().latency_ms(0.5))
    assert counts(Traffic.merged([])) == (0, 0, 0, 0)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -1.0, 1e300])
def test_a_latency_that_is_no_time_counts_as_a_request_only(odd: float) -> None:
    traffic = Traffic()
    traffic.add(rows=2, latencies_ms=[odd, 3.0])
    assert counts(traffic) == (2, 0, 2, 1)
    assert traffic.latency_ms(1.0) == 3.0


@pytest.mark.parametrize("wrong", [{"rows": -1}, {"errors": -1}])
def test_counts_below_zero_are_a_mistake(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Traffic().add(**wrong)


OUTPUTS = {"y": np.zeros(3)}


@pytest.mark.parametrize(
    ("event", "requests", "errors", "latencies"),
    [
        pytest.param(Served("m", "1", 3, None, OUTPUTS, [1.0, 2.0]), 2, 0, 2, id="answered"),
        pytest.param(Served("m", "1", 3, None, None, [1.0, 2.0]), 2, 0, 2, id="answered, outputs kept back"),
        pytest.param(Served("m", "1", 3, None, None, [1.0, 2.0], errors=2), 2, 2, 0, id="all failed"),
        pytest.param(Served("m", "1", 3, None, OUTPUTS, [1.0, 2.0, 9.0], errors=1), 3, 1, 3, id="one of three failed"),
        pytest.param(Served("m", "1", 0, None, None, (), errors=1), 1, 1, 0, id="refused before it ran"),
    ],
)
def test_served_batches_are_counted_by_request(event: Served, requests: int, errors: int, latencies: int) -> None:
    traffic = Traffic()
    traffic.observe(event)
    assert counts(traffic) == (requests, errors, event.rows, latencies)
    assert counts(Traffic.decode(traffic.encode())) == counts(traffic)


@given(latencies, st.integers(0, 2**40), st.integers(0, 2**60))
@example([], 0, 0)
@example([1.0], 0, 1)
def test_encoding_round_trips(values: list[float], errors: int, rows: int) -> None:
    sent = window(values, errors, rows)
    received = Traffic.decode(sent.encode())
    assert counts(received) == counts(sent)
    if values:
        assert [received.latency_ms(r) for r in RANKS] == [sent.latency_ms(r) for r in RANKS]
    received.merge(sent)
    assert received.latencies == 2 * len(values)


def test_an_encoded_window_stays_small_however_much_it_has_seen() -> None:
    rng = np.random.default_rng(0)
    traffic = Traffic()
    for _ in range(30):
        traffic.add(latencies_ms=rng.exponential(5, 100_000))
    for _ in range(8):
        traffic.merge(traffic)
    assert traffic.requests == 3_000_000 * 2**8
    assert len(traffic.encode()) < 30_000 < MAX_BYTES


WHOLE = window(np.arange(5000), errors=3, rows=7).encode()


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits_are_refused(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(WHOLE)
    for position, mask in flips:
        damaged[position] ^= mask
    if bytes(damaged) != WHOLE:
        with pytest.raises((InvalidData, NewerFormat)):
            Traffic.decode(bytes(damaged))


@given(st.integers(0, len(WHOLE) - 1))
def test_truncated_bytes_are_refused(length: int) -> None:
    with pytest.raises(InvalidData, match="damaged"):
        Traffic.decode(WHOLE[:length])


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x93")
def test_any_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises((InvalidData, NewerFormat)):
        Traffic.decode(raw)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(InvalidData, match="at most"):
        Traffic.decode(bytes(MAX_BYTES + 1))


def test_a_newer_format_says_to_upgrade() -> None:
    with pytest.raises(NewerFormat, match="upgrade"):
        Traffic.decode(msgspec.msgpack.encode([FORMAT + 1, "whatever", "comes", "then"]))


def test_a_window_that_contradicts_itself_is_refused() -> None:
    lying = window([1.0, 2.0])
    lying.requests = 1
    with pytest.raises(InvalidData, match="contradict"):
        Traffic.decode(lying.encode())
