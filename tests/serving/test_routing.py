"""Who meets the challenger."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairway.core.manifest import ModelRef
from fairway.registry.records import Release
from fairway.serving.follow import possible, route_for, versions_of
from fairway.serving.routing import Route, choose, position

keys = st.text()
weights = st.floats(0, 1)


@given(keys, weights, weights)
def test_raising_the_weight_never_moves_a_caller_back(key: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if choose(Route("3", "4", low), "digits", key) == "4":
        assert choose(Route("3", "4", high), "digits", key) == "4"


@given(keys)
def test_nobody_meets_a_challenger_of_weight_zero_and_everybody_one_of_weight_one(key: str) -> None:
    assert choose(Route("3", "4", 0.0), "digits", key) == "3"
    assert choose(Route("3", "4", 1.0), "digits", key) == "4"


def test_the_share_is_the_weight() -> None:
    route = Route("3", "4", 0.1)
    share = sum(choose(route, "digits", f"user-{n}") == "4" for n in range(20_000)) / 20_000
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / 20_000) ** 0.5  # four standard errors; the keys are fixed


def test_another_release_meets_other_callers_first() -> None:
    first = {n for n in range(2_000) if position("digits:4", str(n)) < 0.1}
    second = {n for n in range(2_000) if position("digits:5", str(n)) < 0.1}
    assert len(first & second) < 0.5 * len(first)


numbers = st.sampled_from(["1", "2", "3"])
routes = st.builds(Route, numbers, st.none() | numbers, weights)


@given(routes, st.frozensets(numbers), st.none() | routes)
def test_callers_are_only_ever_sent_to_what_is_loaded_or_stay_where_they_are(
    wanted: Route, loaded: frozenset[str], current: Route | None
) -> None:
    route = possible(wanted, loaded, current)
    assert route == current or (route is not None and versions_of(route) <= loaded)
    if versions_of(wanted) <= loaded:
        assert route == wanted


def test_a_release_wins_over_the_alias_and_a_pinned_version_over_both() -> None:
    release = Release("digits", 3, challenger=4, weight=0.5)
    aliases = {"champion": 2, "staging": 7}
    assert route_for(ModelRef("digits"), aliases, release) == Route("3", "4", 0.5)
    assert route_for(ModelRef("digits"), aliases, None) == Route("2")
    assert route_for(ModelRef("digits", alias="staging"), aliases, release) == Route("7")
    assert route_for(ModelRef("digits", version=1), aliases, release) == Route("1")
    assert route_for(ModelRef("digits"), {}, None) is None
