"""What a search does next: a pure function of its space and its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from fairway.optimization.search.journal import Began, Event, Plan
from fairway.optimization.search.propose import neighbour, promising, sampled, scout
from fairway.optimization.search.space import Point, Space, key
from fairway.optimization.search.trials import Trial, best, known_bad, trials


class Make(msgspec.Struct, frozen=True):
    """Make a point; ``origin`` says what proposed it."""

    point: Point
    origin: str


class Probe(msgspec.Struct, frozen=True):
    """Measure its objective shortly, beside the original."""

    point: Point


class Examine(msgspec.Struct, frozen=True):
    """Examine its quality on the rows of one rung."""

    point: Point
    rung: int


class Leave(msgspec.Struct, frozen=True):
    """Go on without it: it is slower than one that keeps the limits."""

    point: Point
    reason: str


class Stop(msgspec.Struct, frozen=True):
    """Try nothing more."""

    reason: str


_SAMPLED = 4
"""One in so many points is drawn by the sampler, which does not take effects to add up as the model does."""

Step: TypeAlias = Make | Probe | Examine | Leave


def decide(space: Space, events: Sequence[Event]) -> Step | Stop:
    """The next step of the search that wrote ``events``.

    A point that was begun is finished first. Then come the points that the search was begun with; if none of them is any
    better than the original, that is the end. Then one of each kind; neighbours of the best, and points anywhere that promise
    most, until nothing has been better for a while. A small space is tried to its last point.

    Raises
    ------
    ValueError
        If the first event does not say what the search was begun with.
    """
    if not events or not isinstance(events[0], Began):
        raise ValueError("a journal begins with the plan of its search")
    plan, found = events[0].plan, trials(events)
    for trial in found.values():
        if not trial.finished(plan.rungs):
            return _continued(trial, found, plan)
    for start in plan.starts:
        if key(start.point) not in found:
            return Make(start.point, start.origin)
    return _proposed(space, found, plan)


def _continued(trial: Trial, found: Mapping[str, Trial], plan: Plan) -> Step:
    if trial.ratio is None:
        return Probe(trial.point)
    given = {key(start.point) for start in plan.starts}
    leader = best(found.values(), plan.rungs)
    pace = min(1.0 if plan.original_keeps else float("inf"), (leader and leader.ratio) or float("inf"))
    if key(trial.point) not in given and trial.ratio >= pace:
        return Leave(
            trial.point, f"{trial.ratio:.2f} of the original's cost; another takes {pace:.2f}, and keeps the gate"
        )
    return Examine(trial.point, len(trial.outcomes))


def _proposed(space: Space, found: Mapping[str, Trial], plan: Plan) -> Step | Stop:
    proposed = len(found) - sum(key(start.point) in found for start in plan.starts)
    gained = [trial for trial in found.values() if trial.ratio is not None and trial.ratio < 1 - plan.min_gain]
    if plan.trials and not gained:
        return Stop("none of the forms tried is cheaper than the original, so no other was")
    if proposed >= plan.trials:
        return Stop(f"{plan.trials} further forms were tried" if plan.trials else "every form asked for was tried")
    small = space.size <= len(found) + plan.trials - proposed
    if not small and _since_better(found, plan) >= plan.patience:
        return Stop(f"none of the last {plan.patience} forms was better than the best")
    bad = known_bad(list(found.values()))

    def new(point: Point) -> bool:
        return key(point) not in found and not bad & set(point.items())

    if kind := scout(space, found, new):
        return Make(kind, "scout")
    if near := neighbour(space, found, plan, new):
        return Make(near, "neighbour")
    if len(found) % _SAMPLED == 1 and not small and (guess := sampled(space, found, plan, new)):
        return Make(guess, "tpe")
    if left := promising(space, found, new):
        return Make(left, "model")
    return Stop("every form was tried")


def _since_better(found: Mapping[str, Trial], plan: Plan) -> int:
    """Points proposed since the best one was begun, or since the last of those given."""
    given = {key(start.point) for start in plan.starts}
    pace, since = float("inf"), 0
    for name, trial in found.items():
        since = 0 if name in given else since + 1
        if trial.keeps(plan.rungs) and trial.ratio is not None and trial.ratio < pace * (1 - plan.min_gain):
            pace, since = trial.ratio, 0
    return since
