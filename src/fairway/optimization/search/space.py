"""A conditional space: axes of choices, some of which exist only where others were made so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeAlias

import msgspec

Value: TypeAlias = str | int | float | bool
Point: TypeAlias = dict[str, Value]
"""One choice on every axis that exists there, in the order of the axes."""


class Choice(msgspec.Struct, frozen=True):
    """One value of an axis.

    Attributes
    ----------
    value : str, int, float or bool
    when : mapping of axis name to values
        The earlier axes must have one of these; an axis that does not exist has none.
    """

    value: Value
    when: dict[str, tuple[Value, ...]] = {}


class Axis(msgspec.Struct, frozen=True):
    """One thing to choose. Where none of its choices may be made, it does not exist.

    Attributes
    ----------
    name : str
    choices : tuple of Choice
        The first that may be made is taken where nothing else is asked for.
    ordered : bool
        Whether the values, sorted, are a scale: only the next ones are neighbours.
    kinds : bool
        Whether the values are of different kinds, so that each should be tried before any is tuned.
    """

    name: str
    choices: tuple[Choice, ...]
    ordered: bool = False
    kinds: bool = False

    def open_in(self, point: Mapping[str, Value]) -> tuple[Value, ...]:
        """The values that may be chosen, given what was chosen on earlier axes."""
        return tuple(
            choice.value
            for choice in self.choices
            if all(point.get(name, _NONE) in allowed for name, allowed in choice.when.items())
        )


_NONE = object()


class Space:
    """Axes in order; each may depend on those before it.

    Parameters
    ----------
    axes : tuple of Axis

    Raises
    ------
    ValueError
        If a condition names no earlier axis.

    Examples
    --------
    >>> kinds = Axis("kind", (Choice("float"), Choice("int8")))
    >>> space = Space((kinds, Axis("bits", (Choice(7, {"kind": ("int8",)}), Choice(8, {"kind": ("int8",)})))))
    >>> list(space.points())
    [{'kind': 'float'}, {'kind': 'int8', 'bits': 7}, {'kind': 'int8', 'bits': 8}]
    >>> space.complete({"kind": "int8"})
    {'kind': 'int8', 'bits': 7}
    """

    def __init__(self, axes: tuple[Axis, ...]) -> None:
        known = set[str]()
        for axis in axes:
            if unknown := {name for choice in axis.choices for name in choice.when} - known:
                raise ValueError(f"axis {axis.name!r} depends on {min(unknown)!r}, which is no earlier axis")
            known.add(axis.name)
        self.axes = axes

    @cached_property
    def size(self) -> int:
        """How many points there are."""
        return sum(1 for _ in self.points())

    def points(self) -> Iterator[Point]:
        """Every point, the first choices first."""
        yield from self._from(0, {})

    def _from(self, number: int, point: Point) -> Iterator[Point]:
        if number == len(self.axes):
            yield dict(point)
            return
        axis = self.axes[number]
        values = axis.open_in(point)
        if not values:
            yield from self._from(number + 1, point)
        for value in values:
            yield from self._from(number + 1, {**point, axis.name: value})

    def complete(self, wanted: Mapping[str, Value]) -> Point:
        """The point nearest to what is wanted: values that may not be chosen there give way to the first that may."""
        point: Point = {}
        for axis in self.axes:
            if values := axis.open_in(point):
                asked = wanted.get(axis.name, values[0])
                point[axis.name] = asked if asked in values else values[0]
        return point

    def holds(self, point: Mapping[str, Value]) -> bool:
        """Whether this is a point of the space."""
        return self.complete(point) == point

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Points that differ in one choice, and in what depends on it."""
        seen = {key(point)}
        for axis in self.axes:
            if axis.name not in point:
                continue
            for value in _nearest(axis, axis.open_in(point), point[axis.name]):
                moved = self.complete({**point, axis.name: value})
                if key(moved) not in seen:
                    seen.add(key(moved))
                    yield moved


def key(point: Mapping[str, Value]) -> str:
    """What a point is known by.

    Examples
    --------
    >>> key({"kind": "int8", "bits": 7})
    'kind=int8,bits=7'
    """
    return ",".join(f"{name}={value}" for name, value in point.items())


def _nearest(axis: Axis, values: tuple[Value, ...], value: Value) -> tuple[Value, ...]:
    if not axis.ordered:
        return tuple(other for other in values if other != value)
    scale = sorted(values)
    place = scale.index(value)
    return tuple(scale[max(place - 1, 0) : place]) + tuple(scale[place + 1 : place + 2])
