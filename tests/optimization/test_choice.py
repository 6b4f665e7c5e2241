"""Rounds become one number with an interval, and noise does not pick the winner."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.core.gate import Limit, Outcome, judge
from fairway.core.manifest import Cost
from fairway.core.metrics import Measurement
from fairway.optimization.choice import Choice, Contestant, choose
from fairway.optimization.cost import fit_cost
from fairway.optimization.pareto import front
from fairway.optimization.rounds import combine, compare, order_interval
from fairway.optimization.scoring import objective_rounds
from fairway.optimization.settings import OptimizationSettings, seconds

SETTINGS = OptimizationSettings()
MB = 10**6


def latency(values: Sequence[float], spread: float = 0.1) -> tuple[Measurement, ...]:
    return tuple(Measurement("latency_p50_ms", v, v - spread, v + spread, n=100) for v in values)


def contestant(name: str, values: Sequence[float], *, passed: bool = True, size: int = 10 * MB) -> Contestant:
    return Contestant(name, passed, latency(values), size)


ORIGINAL = contestant("original", [2.0, 2.1, 1.9, 2.0, 2.05])


def pick(*others: Contestant, original: Contestant = ORIGINAL, settings: OptimizationSettings = SETTINGS) -> Choice:
    return choose(original, others, settings)


# --- choosing -----------------------------------------------------------------------------------------------------


def test_a_candidate_that_is_faster_in_every_round_is_taken() -> None:
    choice = pick(contestant("int8", [1.0, 1.1, 0.9, 1.0, 1.0]))
    assert choice.name == "int8"
    assert "-50 %" in choice.reason


def test_a_faster_candidate_that_the_gate_refuses_is_not() -> None:
    choice = pick(contestant("int8", [1.0, 1.1, 0.9, 1.0, 1.0], passed=False))
    assert choice.name == "original"
    assert choice.reason == "no candidate passes the gate"


def test_one_slow_round_makes_it_noise() -> None:
    choice = pick(contestant("int8", [1.0, 1.1, 2.9, 1.0, 1.0]))
    assert choice.name == "original"
    assert "nothing pays" in choice.reason
    assert "not beyond the noise" in choice.others["int8"]


def test_rounds_are_paired_so_that_a_machine_that_slows_down_hides_nothing() -> None:
    slowing = [1.0, 1.5, 2.0, 3.0, 4.0]
    choice = pick(contestant("int8", [0.8 * v for v in slowing]), original=contestant("original", slowing))
    assert choice.name == "int8"


def test_a_gain_below_what_pays_is_no_gain() -> None:
    choice = pick(contestant("graph", [v.value * 0.98 for v in ORIGINAL.rounds]))
    assert choice.name == "original"
    assert "3%" in choice.others["graph"]


def test_equal_speed_and_much_smaller_pays() -> None:
    choice = pick(contestant("int8", [2.0, 2.0, 2.0, 2.0, 2.0], size=3 * MB))
    assert choice.name == "int8"
    assert "7.00 MB smaller" in choice.reason


def test_a_few_bytes_do_not_pay() -> None:
    small = contestant("original", [2.0, 2.1, 1.9, 2.0, 2.05], size=9_000)
    assert pick(contestant("int8", [2.0] * 5, size=2_000), original=small).name == "original"


def test_slower_and_smaller_does_not_pay() -> None:
    assert pick(contestant("int8", [3.0] * 5, size=MB)).name == "original"


def test_of_two_that_cannot_be_told_apart_the_smaller_is_taken() -> None:
    one = contestant("graph", [1.0, 1.1, 0.9, 1.0, 1.0])
    two = contestant("int8", [1.05, 1.0, 1.0, 1.05, 0.95], size=3 * MB)
    assert pick(one, two).name == "int8"


def test_of_two_of_one_size_that_cannot_be_told_apart_the_first_is_taken() -> None:
    one = contestant("graph", [1.0, 1.1, 0.9, 1.0, 1.0])
    two = contestant("int8", [1.05, 1.0, 0.85, 1.05, 0.9])
    assert pick(one, two).name == "graph"
    assert pick(two, one).name == "int8"


def test_where_the_original_fails_the_best_that_passes_is_taken() -> None:
    failing = contestant("original", [2.0] * 5, passed=False)
    choice = pick(contestant("graph", [2.0] * 5), contestant("int8", [1.0] * 5), original=failing)
    assert choice.name == "int8"
    assert "the original does not pass" in choice.reason


def test_where_nothing_passes_the_original_is_kept_and_that_is_said() -> None:
    failing = contestant("original", [2.0] * 5, passed=False)
    choice = pick(contestant("int8", [1.0] * 5, passed=False), original=failing)
    assert choice == Choice("original", "no candidate passes the gate, and neither does the original")


def test_of_several_loads_the_largest_is_compared_by() -> None:
    def at(load: float | None) -> list[Measurement]:
        return [msgspec.structs.replace(each, at_rps=load) for each in latency([load or 99.0])]

    rounds: dict[tuple[str, float | None], list[Measurement]] = {
        (name, load): at(load) for name in ("latency_p50_ms", "memory_mb") for load in (5.0, 50.0, 9.0)
    }
    assert objective_rounds(rounds, "latency_p50_ms")[0].at_rps == 50.0
    rounds["latency_p50_ms", None] = at(None)
    assert objective_rounds(rounds, "latency_p50_ms")[0].at_rps is None
    assert objective_rounds(rounds, "size_mb") == ()


def test_throughput_is_better_high() -> None:
    def rounds(value: float) -> tuple[Measurement, ...]:
        return tuple(Measurement("throughput_rps", value, value - 1, value + 1) for _ in range(5))

    settings = OptimizationSettings(objective="throughput_rps")
    original, other = (Contestant(n, True, rounds(v), MB) for n, v in (("original", 100.0), ("int8", 150.0)))
    assert choose(original, [other], settings).name == "int8"
    assert choose(msgspec.structs.replace(other, name="original"), [original], settings).name == "original"


def test_few_rounds_need_intervals_that_are_apart() -> None:
    original = Contestant("original", True, latency([2.0, 2.1], 0.05), MB)
    apart = Contestant("int8", True, latency([1.0, 1.1], 0.05), MB)
    wide = Contestant("int8", True, latency([1.5, 1.6], 0.8), MB)
    assert choose(original, [apart], SETTINGS).name == "int8"
    assert choose(original, [wide], SETTINGS).name == "original"


def test_noise_alone_seldom_picks_a_winner() -> None:
    """Four candidates as fast as the original, 10 % noise: wrong at most in 4 * 2^-5 = 12.5 % even without min_gain."""
    noise = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        field = [contestant(str(i), noise.normal(2.0, 0.2, 5).tolist()) for i in range(5)]
        wrong += choose(field[0], field[1:], SETTINGS).name != "0"
    assert wrong / 400 <= 0.125


def test_a_gain_of_a_fifth_is_nearly_always_found() -> None:
    noise = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        original = contestant("original", noise.normal(2.0, 0.08, 5).tolist())
        found += choose(original, [contestant("int8", noise.normal(1.6, 0.08, 5).tolist())], SETTINGS).name == "int8"
    assert found / 200 >= 0.9


@given(st.permutations([0.5, 1.0, 1.5, 1.7]))
def test_the_fastest_is_found_whatever_the_order(speeds: list[float]) -> None:
    others = [contestant(f"c{speed}", [speed] * 5) for speed in speeds]
    assert pick(*others).name == "c0.5"


# --- rounds -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.1, 100), min_size=5, max_size=30))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    combined = combine(latency(values))
    assert combined.low <= combined.value <= combined.high
    assert combined.confidence >= 0.9
    assert combined.n == 100 * len(values)


@pytest.mark.parametrize("rounds", [5, 8, 13])
def test_the_interval_covers_the_true_median_as_often_as_it_says(rounds: int) -> None:
    draw = random.Random(0)
    covered = 0
    for _ in range(2000):
        low, high, stated = order_interval([draw.lognormvariate(0, 1) for _ in range(rounds)])
        covered += low <= 1.0 <= high
    assert covered / 2000 == pytest.approx(stated, abs=0.02)


def test_an_error_in_one_round_is_the_answer() -> None:
    broken = Measurement.failed("latency_p50_ms", "the server died")
    assert combine([*latency([1.0, 1.0]), broken]).error == "the server died"
    assert compare([*latency([1.0]), broken], latency([2.0, 2.0]), "original").error == "the server died"


def test_an_exact_number_stays_exact() -> None:
    size = [Measurement.exact("size_mb", 3.0)] * 5
    assert combine(size) == size[0]
    change = compare([Measurement.exact("size_mb", 1.0)] * 5, size, "original")
    assert (change.value, change.low, change.high, change.confidence) == (-2.0, -2.0, -2.0, 1.0)


def readings(name: str, *values: float) -> list[Measurement]:
    return [Measurement.bare(name, value, "read once", n=1) for value in values]


@pytest.mark.parametrize("name", ["load_ms", "memory_mb"])
@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_a_few_readings_have_a_value_that_nobody_judges_by(name: str, rounds: int) -> None:
    """The extremes of four cover the median in 1 - 2 / 2^4 = 87.5 % of such samples, those of fewer in less."""
    found = combine(readings(name, *[10.0, 11.0, 12.0, 13.0][:rounds]))
    assert found.has_value
    assert not found.known
    assert judge({name: Limit(max=1000)}, [found]).outcome is Outcome.INCONCLUSIVE
    change = compare(readings(name, *[1.0] * rounds), readings(name, *[9.0] * rounds), "original")
    assert (change.value, change.known) == (-8.0, False)
    if rounds > 1:
        assert "raise [optimize] repeats" in found.method
        assert "raise [optimize] repeats" in change.method


def test_numbers_that_claim_to_be_exact_and_differ_between_rounds_are_readings() -> None:
    found = combine([Measurement.exact("memory_mb", value) for value in (50.0, 51.0)])
    assert (found.value, found.known) == (50.5, False)


def test_five_readings_have_the_interval_of_their_median() -> None:
    found = combine(readings("memory_mb", 10.0, 11.0, 12.0, 13.0, 14.0))
    assert (found.low, found.value, found.high, found.confidence) == (10.0, 12.0, 14.0, 0.9375)
    assert judge({"memory_mb": Limit(max=1000)}, [found]).passed
    change = compare(readings("memory_mb", *[1.0] * 5), readings("memory_mb", *[9.0] * 5), "original")
    assert (change.value, change.confidence) == (-8.0, 0.9375)


def test_one_reading_each_picks_no_winner() -> None:
    settings = OptimizationSettings(objective="load_ms")
    original, faster = (
        Contestant(name, True, tuple(readings("load_ms", value)), MB)
        for name, value in (("original", 9.0), ("int8", 1.0))
    )
    assert choose(original, [faster], settings).name == "original"


# --- cost ---------------------------------------------------------------------------------------------------------


@given(st.floats(0.5, 1e5), st.floats(0.01, 1e4))
def test_a_line_is_found_again(base: float, row: float) -> None:
    cost = fit_cost({n: (base + row * n) * 1e-6 for n in (1, 2, 4, 8, 16, 32, 64)})
    for rows in (1, 64):
        assert cost.of(rows) == pytest.approx(base + row * rows, rel=0.02)


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8, 16]), st.floats(1e-6, 1.0), min_size=1))
def test_a_cost_is_never_negative(times: dict[int, float]) -> None:
    cost = fit_cost(times)
    assert cost.base_us >= 0
    assert cost.row_us >= 0


def test_one_size_gives_a_flat_cost() -> None:
    assert fit_cost({1: 5e-6}) == Cost(5.0, 0.0)


# --- settings and front -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [("5m", 300.0), ("90s", 90.0), ("1h30m", 5400.0), ("1m 30s", 90.0)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "five", "5 minutes", "-5m", "m5"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_budget": "soon"},
        {"candidates": ["int4"]},
        {"objective": "latency_p50"},
        {"objective": "accuracy_score"},
        {"objective": "check_failure_rate"},
        {"repeats": 0},
        {"level": "all"},
        {"budget": "5m"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_where_they_are_read(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, OptimizationSettings)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1))
def test_no_point_beats_one_of_the_front(points: list[tuple[float, float]]) -> None:
    kept = front(points, cost_up=False, quality_up=True)
    for x, y in kept:
        assert not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
    for a, b in points:
        assert any(x <= a and y >= b for x, y in kept)
