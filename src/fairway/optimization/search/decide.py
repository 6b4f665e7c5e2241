"""What a search does next: a pure function of its space and its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from fairway.optimization.search.journal import Began, Event, Made, Outpaced, Plan, Probed
from fairway.optimization.search.propose import New, neighbour, promising, sampled, scout
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
    """Try nothing more; ``spent`` if only because no time is left."""

    reason: str
    spent: bool = False


_SAMPLED = 4
"""One in so many points is drawn by the sampler, which does not take effects to add up as the model does."""

Step: TypeAlias = Make | Probe | Examine | Leave


def decide(space: Space, events: Sequence[Event], *, closing: bool = False) -> Step | Stop:
    """The next step of the search that wrote ``events``.

    First the points that the search was begun with are made and timed; if any of them is better than the original, so is one
    of each kind. Then they are examined, the fastest first, so that slower ones can be left. If none is any better than the
    original, that is the end. Then come neighbours of the best, and points anywhere that promise most, until nothing has been
    better for a while. A small space is tried to its last point. ``closing``: nothing more is made.

    Raises
    ------
    ValueError
        If the first event does not say what the search was begun with.
    """
    if not events or not isinstance(events[0], Began):
        raise ValueError("a journal begins with the plan of its search")
    plan, found = events[0].plan, trials(events)
    open_trials = [trial for trial in found.values() if not trial.finished(plan.rungs)]
    for trial in open_trials:
        if trial.ratio is None:
            return Probe(trial.point)
    first = _first(space, found, plan)
    if first and not closing:
        return first
    if open_trials:
        return _continued(min(open_trials, key=lambda trial: trial.ratio or 0.0), found, plan)
    step = first or _proposed(space, found, plan)
    return Stop("no time is left", spent=True) if closing and isinstance(step, Make) else step


def ahead(space: Space, events: Sequence[Event], count: int) -> list[Point]:
    """Up to ``count`` points that are made next, if those before them turn out to be no better than what there is.

    Most are not, so what is made ahead is seldom made in vain.
    """
    supposed, points = list(events), list[Point]()
    while len(points) < count:
        match decide(space, supposed):
            case Make(point, origin):
                points.append(point)
                supposed.append(Made(point, origin, "", 0))
            case Probe(point):
                supposed.append(Probed(point, 1.0))
            case Leave(point, reason):
                supposed.append(Outpaced(point, reason))
            case _:  # what is known already is to be examined first, or nothing is left
                break
    return points


def _first(space: Space, found: Mapping[str, Trial], plan: Plan) -> Make | None:
    """What is made before anything is examined."""
    for start in plan.starts:
        if key(start.point) not in found:
            return Make(start.point, start.origin)
    if not _gained(found, plan) or _proposals(found, plan) >= plan.trials:
        return None
    kind = scout(space, found, _new(found))
    return Make(kind, "scout") if kind else None


def _gained(found: Mapping[str, Trial], plan: Plan) -> bool:
    return any(trial.ratio is not None and trial.ratio < 1 - plan.min_gain for trial in found.values())


def _proposals(found: Mapping[str, Trial], plan: Plan) -> int:
    return len(found) - sum(key(start.point) in found for start in plan.starts)


def _new(found: Mapping[str, Trial]) -> New:
    bad = known_bad(list(found.values()))
    return lambda point: key(point) not in found and not bad & set(point.items())


def _continued(trial: Trial, found: Mapping[str, Trial], plan: Plan) -> Step:
    given = {key(start.point) for start in plan.starts} if plan.insisted else set()
    leader = best(found.values(), plan.rungs)
    pace = min(1.0 if plan.original_keeps else float("inf"), (leader and leader.ratio) or float("inf"))
    if key(trial.point) not in given and (trial.ratio or 0.0) >= pace:
        return Leave(
            trial.point, f"{trial.ratio:.2f} of the original's cost; another takes {pace:.2f}, and keeps the gate"
        )
    return Examine(trial.point, len(trial.outcomes))


def _proposed(space: Space, found: Mapping[str, Trial], plan: Plan) -> Step | Stop:
    proposed, new = _proposals(found, plan), _new(found)
    if plan.trials and not _gained(found, plan):
        return Stop("none of the forms tried is cheaper than the original, so no other was")
    if proposed >= plan.trials:
        return Stop(f"{plan.trials} further forms were tried" if plan.trials else "every form asked for was tried")
    small = space.size <= len(found) + plan.trials - proposed
    if not small and _since_better(found, plan) >= plan.patience:
        return Stop(f"none of the last {plan.patience} forms was better than the best")
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
