"""A conditional space: what may be chosen depends on what was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.optimization.search.space import Axis, Choice, Space, key
from tests.optimization.search.landscape import SPACE, axis

POINTS = list(SPACE.points())
points = st.sampled_from(POINTS)


def test_every_point_is_there_once() -> None:
    assert SPACE.size == len(POINTS) == len(set(map(key, POINTS)))
    assert all(SPACE.holds(point) for point in POINTS)


def test_an_axis_without_a_choice_to_make_does_not_exist() -> None:
    assert SPACE.complete({"weights": "float", "method": "entropy"}) == {
        "graph": "plain",
        "weights": "float",
        "threads": 1,
    }


def test_one_choice_may_have_a_condition_of_its_own() -> None:
    engine = Axis("engine", (Choice("onnxruntime"), Choice("openvino", {"graph": ("plain",)})))
    space = Space((axis("graph", "plain", "fused"), engine))
    assert not space.holds({"graph": "fused", "engine": "openvino"})
    assert space.complete({"graph": "fused", "engine": "openvino"}) == {"graph": "fused", "engine": "onnxruntime"}


def test_a_condition_on_a_later_axis_is_an_error() -> None:
    with pytest.raises(ValueError, match="'b', which is no earlier axis"):
        Space((axis("a", 1, 2, b=(1,)), axis("b", 1, 2)))


@given(points)
def test_neighbours_differ_in_one_choice_and_what_depends_on_it(point: dict[str, str | int | float | bool]) -> None:
    for other in SPACE.neighbours(point):
        assert SPACE.holds(other)
        changed = [name for name in other if name in point and other[name] != point[name]]
        first = next(axis.name for axis in SPACE.axes if point.get(axis.name) != other.get(axis.name))
        assert changed == [first]


@given(points)
def test_being_neighbours_is_mutual_where_no_axis_comes_or_goes(point: dict[str, str | int | float | bool]) -> None:
    for other in SPACE.neighbours(point):
        if other.keys() == point.keys():
            assert point in list(SPACE.neighbours(other))


def test_on_a_scale_only_the_next_values_are_neighbours() -> None:
    space = Space((axis("share", 0.2, 0.1, 0.4, 0.3, ordered=True),))
    assert list(space.neighbours({"share": 0.2})) == [{"share": 0.1}, {"share": 0.3}]


@given(st.dictionaries(st.sampled_from([a.name for a in SPACE.axes]), st.sampled_from(["fused", "mixed", 2, 0.6, "x"])))
def test_whatever_is_wished_for_gives_a_point(wanted: dict[str, str | int | float | bool]) -> None:
    assert SPACE.holds(SPACE.complete(wanted))
