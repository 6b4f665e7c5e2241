"""The search on simulated landscapes: what it finds, what that costs, and that it goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.core.gate import Outcome
from fairway.optimization.search.decide import Examine, Leave, Make, Probe, Step, Stop, ahead, decide
from fairway.optimization.search.journal import Began, Event, Examined, Made, Outpaced, Plan, Probed, Start, Unmade
from fairway.optimization.search.space import Point, Space, key
from fairway.optimization.search.trials import best, finalists, known_bad, trials
from tests.optimization.search.landscape import SPACE, STARTS, Landscape, axis, begin, play

SEEDS = 40
RUNGS = 3


@cache
def played(seed: int) -> tuple[tuple[Event, ...], float]:
    landscape = Landscape(seed)
    events, _ = play(landscape, begin())
    return tuple(events), landscape.spent


def found_ratio(seed: int, events: Sequence[Event]) -> float:
    winner = best(trials(events).values(), RUNGS)
    return min(1.0, Landscape(seed).ratio(winner.point) if winner else 1.0)


# --- what is made ahead -------------------------------------------------------------------------------------------


def made_ahead(seed: int, count: int) -> tuple[int, int, int, int]:
    """How many points a search asked for, how many were made, how many of these it asked for, and in how many turns."""
    events, _ = played(seed)
    asked = {key(event.point) for event in events if isinstance(event, Made | Unmade)}
    there, turns = set[str](), 0
    for end, event in enumerate(events):
        if isinstance(event, Made | Unmade) and key(event.point) not in there:
            there |= {key(point) for point in ahead(SPACE, events[:end], count)}
            turns += 1
    return len(asked), len(there), len(asked & there), turns


@pytest.mark.parametrize(("count", "used", "turns"), [(2, 0.85, 0.65), (4, 0.7, 0.5), (8, 0.55, 0.45)])
def test_most_of_what_is_made_ahead_is_asked_for_later(count: int, used: float, turns: float) -> None:
    asked, made, wanted, taken = map(sum, zip(*(made_ahead(seed, count) for seed in range(SEEDS)), strict=True))
    assert wanted == asked
    assert wanted / made > used
    assert taken / asked < turns


@pytest.mark.parametrize("seed", range(0, SEEDS, 5))
def test_first_of_what_is_made_ahead_is_what_is_asked_for_now(seed: int) -> None:
    events, _ = played(seed)
    for end in range(1, len(events)):
        step, points = decide(SPACE, events[:end]), ahead(SPACE, events[:end], 3)
        assert len({key(point) for point in points}) == len(points) <= 3
        if isinstance(step, Make):
            assert points[0] == step.point
        elif isinstance(step, Examine | Stop):
            assert not points


# --- what is found ------------------------------------------------------------------------------------------------


def test_it_finds_what_a_sweep_finds_at_a_fraction_of_the_cost() -> None:
    """136 points, interactions up to 15 % between any two choices: within 3 % of the best, in nine of ten landscapes."""
    hits, shares = 0, []
    for seed in range(SEEDS):
        events, spent = played(seed)
        best_ratio, cost = Landscape(seed).sweep()
        hits += found_ratio(seed, events) <= best_ratio * 1.03
        shares.append(spent / cost)
    assert hits / SEEDS >= 0.9
    assert max(shares) <= 0.25
    assert sum(shares) / SEEDS <= 0.15


def test_it_ends_early_where_nothing_pays() -> None:
    landscape = Landscape(0, pays=False)
    events, stop = play(landscape, begin())
    assert "none of the forms tried is cheaper" in stop.reason
    assert len(trials(events)) == len(STARTS)


def test_a_small_space_is_swept() -> None:
    space = Space((axis("graph", "plain", "fused"), axis("weights", "float", "dynamic", "static")))
    for seed in range(10):
        landscape = Landscape(seed)
        events, stop = play(landscape, begin(space), space)
        if stop.reason == "every form was tried":
            assert len(trials(events)) == space.size
            assert found_ratio(seed, events) <= landscape.sweep(space)[0] * 1.03


def test_without_trials_only_what_was_asked_for_is_tried() -> None:
    events, stop = play(Landscape(0), begin(trials=0))
    assert [t.point for t in trials(events).values()] == [SPACE.complete(point) for point in STARTS]
    assert stop.reason == "every form asked for was tried"


def test_what_few_rows_refuse_is_not_examined_on_more() -> None:
    events, _ = played(1)
    refused = {key(e.point) for e in events if isinstance(e, Examined) and e.rung == 0 and e.outcome is Outcome.FAILED}
    assert refused
    assert not any(isinstance(e, Examined) and e.rung > 0 and key(e.point) in refused for e in events)


def test_early_refusals_are_seldom_wrong() -> None:
    """A form that keeps the limit on all rows is refused by a part of them in few cases."""
    kept = wrong = 0
    for seed in range(SEEDS):
        landscape = Landscape(seed)
        for trial in trials(played(seed)[0]).values():
            if landscape.loss(trial.point) <= landscape.limit and trial.outcomes:
                kept, wrong = kept + 1, wrong + trial.refused
    assert wrong / kept <= 0.05


# --- going on -----------------------------------------------------------------------------------------------------


def step_of(event: Event) -> Step:
    match event:
        case Made(point, origin) | Unmade(point, origin):
            return Make(point, origin)
        case Probed(point):
            return Probe(point)
        case Examined(point, rung):
            return Examine(point, rung)
        case Outpaced(point, reason):
            return Leave(point, reason)
    raise AssertionError(event)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 9), cut=st.floats(0, 1))
def test_from_any_prefix_of_the_journal_the_decision_is_the_same(seed: int, cut: float) -> None:
    events, _ = played(seed)
    count = 1 + int(cut * (len(events) - 2))
    assert decide(SPACE, events[:count]) == step_of(events[count])


def test_a_finished_search_stays_finished() -> None:
    events, _ = played(0)
    assert isinstance(decide(SPACE, events), Stop)
    assert decide(SPACE, events) == decide(SPACE, events)


def test_a_journal_without_its_plan_is_an_error() -> None:
    with pytest.raises(ValueError, match="begins with the plan"):
        decide(SPACE, [])


# --- order --------------------------------------------------------------------------------------------------------


def plan(*starts: Point, **changes: object) -> Began:
    return Began(Plan(starts=tuple(map(Start, starts)), **changes))  # type: ignore[arg-type]


def passed(point: Point, ratio: float, outcome: Outcome = Outcome.PASSED) -> list[Event]:
    return [Made(point, "informed", key(point), 1), Probed(point, ratio), Examined(point, 0, outcome)]


SMALL = Space((axis("weights", "float", "int8"), axis("engine", "one", "two", "three")))
FLOAT: Point = {"weights": "float", "engine": "one"}
INT8: Point = {"weights": "int8", "engine": "one"}


def test_given_points_come_first_in_their_order() -> None:
    events: list[Event] = [plan(INT8, FLOAT)]
    assert decide(SMALL, events) == Make(INT8, "informed")
    events += [Made(INT8, "informed", "a", 1)]
    assert decide(SMALL, events) == Probe(INT8)
    events += [Probed(INT8, 0.5)]
    assert decide(SMALL, events) == Make(FLOAT, "informed")


def test_what_was_made_is_examined_the_fastest_first() -> None:
    events: list[Event] = [plan(INT8, FLOAT), Made(INT8, "informed", "a", 1), Probed(INT8, 0.5)]
    events += [Made(FLOAT, "informed", "b", 1), Probed(FLOAT, 0.4)]
    assert decide(SMALL, events) == Examine(FLOAT, 0)
    events += [Examined(FLOAT, 0, Outcome.FAILED)]
    assert decide(SMALL, events) == Examine(INT8, 0)


def test_given_points_that_nobody_insists_on_are_left_where_another_is_faster() -> None:
    events: list[Event] = [plan(INT8, FLOAT, insisted=False), Made(INT8, "informed", "a", 1), Probed(INT8, 0.5)]
    events += [Made(FLOAT, "informed", "b", 1), Probed(FLOAT, 0.9), Examined(INT8, 0, Outcome.PASSED)]
    assert isinstance(step := decide(SMALL, events), Leave)
    assert step.point == FLOAT


KINDS = Space((axis("weights", "float", "int8"), msgspec.structs.replace(axis("engine", "one", "two"), kinds=True)))


def test_one_of_each_kind_is_made_before_anything_is_examined() -> None:
    events: list[Event] = [plan(INT8), Made(INT8, "informed", "a", 1), Probed(INT8, 0.5)]
    step = decide(KINDS, events)
    assert isinstance(step, Make)
    assert (step.origin, step.point["engine"]) == ("scout", "two")
    events += [Made(step.point, "scout", "b", 1), Probed(step.point, 0.7)]
    assert decide(KINDS, events) == Examine(INT8, 0)


def test_where_nothing_gains_no_kind_is_tried() -> None:
    events: list[Event] = [plan(INT8), Made(INT8, "informed", "a", 1), Probed(INT8, 1.1)]
    assert decide(KINDS, events) == Examine(INT8, 0)
    events += [Examined(INT8, 0, Outcome.PASSED)]
    assert isinstance(step := decide(KINDS, events), Stop)
    assert not step.spent


def test_when_no_time_is_left_what_was_made_is_examined_and_nothing_else_made() -> None:
    events: list[Event] = [plan(INT8, FLOAT), Made(INT8, "informed", "a", 1), Probed(INT8, 0.5)]
    assert decide(KINDS, events, closing=True) == Examine(INT8, 0)
    events += [Examined(INT8, 0, Outcome.PASSED)]
    assert isinstance(step := decide(KINDS, events, closing=True), Stop)
    assert step.spent
    assert decide(KINDS, events) == Make(FLOAT, "informed")


def test_then_the_best_ones_neighbours() -> None:
    step = decide(SMALL, [plan(INT8, FLOAT), *passed(INT8, 0.5), *passed(FLOAT, 0.9)])
    assert isinstance(step, Make)
    assert step.origin == "neighbour"
    assert step.point in list(SMALL.neighbours(INT8))


def test_a_proposed_point_that_is_slower_than_the_best_is_left_but_a_given_one_is_examined() -> None:
    events = [plan(INT8, FLOAT), *passed(INT8, 0.5), Made(FLOAT, "informed", "b", 1), Probed(FLOAT, 0.9)]
    assert decide(SMALL, events) == Examine(FLOAT, 0)
    other: Point = {"weights": "int8", "engine": "two"}
    proposed = [plan(INT8), *passed(INT8, 0.5), Made(other, "neighbour", "c", 1), Probed(other, 0.6)]
    assert isinstance(decide(SMALL, proposed), Leave)


def test_where_the_original_breaks_the_limits_a_slower_point_is_examined() -> None:
    events = [plan(INT8, original_keeps=False), *passed(INT8, 0.5, Outcome.FAILED)]
    other: Point = {"weights": "int8", "engine": "two"}
    assert decide(SMALL, [*events, Made(other, "tpe", "c", 1), Probed(other, 1.4)]) == Examine(other, 0)


def test_a_choice_that_alone_can_be_the_reason_is_not_tried_in_other_combinations() -> None:
    two: Point = {"weights": "int8", "engine": "two"}
    events = [plan(INT8, two), *passed(INT8, 0.5), Unmade(two, "informed", "no such engine", failed=True)]
    assert known_bad(list(trials(events).values())) == {("engine", "two")}
    known, _ = play(Landscape(0, noise=0.0), events, SMALL)
    made = [e.point for e in known if isinstance(e, Made)]
    assert {"weights": "float", "engine": "two"} not in made
    assert {"weights": "int8", "engine": "three"} in made


def test_a_choice_is_not_blamed_where_another_could_be_the_reason() -> None:
    two: Point = {"weights": "int8", "engine": "two"}
    assert known_bad(list(trials([plan(FLOAT), *passed(FLOAT, 1.0), Unmade(two, "", "broken")]).values())) == set()


def test_a_choice_that_has_failed_in_three_combinations_and_never_worked_is_the_reason() -> None:
    broken: list[Event] = [
        Unmade({"weights": "mixed", "share": share, "engine": "one"}, "informed", "cannot run", failed=True)
        for share in (0.1, 0.2, 0.3)
    ]
    begun = [plan(FLOAT), *passed(FLOAT, 1.0)]
    assert ("weights", "mixed") not in known_bad(list(trials([*begun, *broken[:2]]).values()))
    assert ("weights", "mixed") in known_bad(list(trials([*begun, *broken]).values()))


def test_finalists_are_the_fastest_that_keep_the_limits_and_the_smallest_of_the_rest() -> None:
    two: Point = {"weights": "int8", "engine": "two"}
    three: Point = {"weights": "int8", "engine": "three"}
    events = [
        plan(),
        *passed(FLOAT, 0.9),
        *passed(INT8, 0.5, Outcome.INCONCLUSIVE),
        *passed(two, 0.7),
        *passed(three, 0.1, Outcome.FAILED),
    ]
    last: Point = {"weights": "float", "engine": "three"}
    events += [Made(last, "informed", "small", 0), Probed(last, 0.95), Examined(last, 0, Outcome.PASSED)]
    found = trials(events).values()
    assert [t.point for t in finalists(found, 1, 4)] == [two, FLOAT, last, INT8]
    assert [t.point for t in finalists(found, 1, 2)] == [two, last]
