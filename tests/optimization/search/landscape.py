"""A landscape to search: what each form would cost and lose, with interactions, and what finding out costs."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fairway.core.gate import Outcome
from fairway.optimization.search.decide import Examine, Leave, Make, Probe, Stop, decide
from fairway.optimization.search.journal import Began, Event, Examined, Made, Outpaced, Plan, Probed, Start
from fairway.optimization.search.space import Axis, Choice, Point, Space, Value, key


def axis(name: str, *values: Value, ordered: bool = False, **when: tuple[Value, ...]) -> Axis:
    return Axis(name, tuple(Choice(value, dict(when)) for value in values), ordered)


SPACE = Space(
    (
        axis("graph", "plain", "fused"),
        axis("tokens", 1.0, 0.8, 0.6, ordered=True, graph=("fused",)),
        axis("weights", "float", "dynamic", "static", "mixed"),
        axis("method", "minmax", "percentile", "entropy", weights=("static", "mixed")),
        axis("float_share", 0.05, 0.1, 0.2, 0.4, ordered=True, weights=("mixed",)),
        axis("threads", 1, 2),
    )
)
"""144 points, a third of the axes conditional."""

STARTS = (
    {"graph": "fused"},
    {"weights": "dynamic"},
    {"weights": "static"},
    {"weights": "static", "method": "percentile"},
)
FRACTIONS = (1 / 9, 1 / 3, 1.0)


class Landscape:
    """What a seed makes of the space. A unit of cost is to examine one form on all rows.

    Every choice multiplies what a form costs and adds to what it loses; every two choices interact.
    """

    def __init__(self, seed: int, *, pays: bool = True, noise: float = 0.01, limit: float = 1.0) -> None:
        self.seed, self.pays, self.noise, self.limit = seed, pays, noise, limit
        self.spent = 0.0

    def _draw(self, *what: object) -> random.Random:
        return random.Random(f"{self.seed} {what}")

    def ratio(self, point: Point) -> float:
        """What it truly costs, the original being 1."""
        value = 1.0
        choices = [(name, chosen) for name, chosen in point.items() if chosen not in ("plain", "float", 1, 1.0)]
        for choice in choices:
            value *= self._draw("speed", choice).uniform(0.55, 1.1) if self.pays else 1.05
        for first in choices:
            for second in choices:
                if first < second:
                    value *= self._draw("both", first, second).uniform(0.87, 1.15)
        return value

    def loss(self, point: Point) -> float:
        """What it truly loses; the limit is 1."""
        choices = [(name, chosen) for name, chosen in point.items() if chosen not in ("plain", "float", 1, 1.0)]
        alone = sum(self._draw("loss", choice).choice((0.0, 0.05, 0.2, 0.5, 1.2)) for choice in choices)
        both = [self._draw("worse", a, b).choice((0.0, 0.0, 0.1)) for a in choices for b in choices if a < b]
        return alone + sum(both)

    def perform(self, step: Make | Probe | Examine | Leave) -> Event:
        match step:
            case Make(point, origin):
                self.spent += 0.1
                return Made(point, origin, key(point), 1)
            case Probe(point):
                self.spent += 0.05
                return Probed(point, self.ratio(point) * (1 + self._draw("noise", point).gauss(0, self.noise)))
            case Examine(point, rung):
                self.spent += FRACTIONS[rung]
                return Examined(point, rung, *self._examined(point, FRACTIONS[rung]))
            case Leave(point, reason):
                return Outpaced(point, reason)

    def _examined(self, point: Point, share: float) -> tuple[Outcome, float]:
        half = 0.15 / share**0.5
        seen = self.loss(point) + self._draw("rows", point, share).gauss(0, half / 2)
        outcome = Outcome.PASSED if seen + half <= self.limit else Outcome.INCONCLUSIVE
        return (Outcome.FAILED if seen - half > self.limit else outcome), seen / self.limit

    def sweep(self, space: Space = SPACE) -> tuple[float, float]:
        """The best ratio of all that would be told to keep the limit, and what examining all of them costs."""
        kept = [p for p in space.points() if self._examined(p, 1.0)[0] is Outcome.PASSED]
        return min(self.ratio(point) for point in kept), 1.15 * space.size


def begin(space: Space = SPACE, **changes: object) -> list[Event]:
    starts = tuple(Start(space.complete(point)) for point in STARTS)
    return [Began(Plan(**{"starts": starts, "rungs": 3, **changes}))]  # type: ignore[arg-type]


def play(landscape: Landscape, events: Sequence[Event], space: Space = SPACE) -> tuple[list[Event], Stop]:
    """Search to the end."""
    known = list(events)
    while not isinstance(step := decide(space, known), Stop):
        known.append(landscape.perform(step))
    return known, step
