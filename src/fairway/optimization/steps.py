"""What each pass bought: candidates whose recipes go on from each other's, and the difference between them."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from fairway.core.metrics import Measurement, difference
from fairway.optimization.report import ORIGINAL, Candidate, Findings

Path: TypeAlias = tuple[tuple[str, Any], ...]

_BY_ITSELF = "graph"
"""The pass whose work ONNX Runtime does as it loads, too: whether it is saved makes no other path."""


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """From one candidate to the next.

    Attributes
    ----------
    before, after : str
        Names of candidates.
    passes : tuple of str
        That the one has and the other has not.
    cost, quality : Measurement or None
        After minus before: to the original as measured in pairs, else from how both sides differ from it. As these were
        measured on the same rows and in the same rounds, the interval is rather too wide than too narrow.
    """

    before: str
    after: str
    passes: tuple[str, ...]
    cost: Measurement | None
    quality: Measurement | None


def steps(found: Findings) -> tuple[Step, ...]:
    """A step to every candidate that was measured, from the measured one that shares the most passes with it."""
    measured = [c for c in found.candidates if c.measurement(found.objective) is not None]
    if not measured or measured[0].name != ORIGINAL:
        return ()
    return tuple(_step(_before(each, measured), each, found) for each in measured[1:])


def way(made: tuple[Step, ...], name: str) -> tuple[Step, ...]:
    """The steps from the original to the candidate called ``name``, in order."""
    to = {step.after: step for step in made}
    found: list[Step] = []
    while name in to:
        found.insert(0, to[name])
        name = to[name].before
    return tuple(found)


def _before(candidate: Candidate, measured: list[Candidate]) -> Candidate:
    """The candidate with the longest recipe that is the beginning of this one's."""
    path, best = _path(candidate), measured[0]
    for other in measured[1:]:
        known = _path(other)
        if len(_path(best)) < len(known) < len(path) and path[: len(known)] == known:
            best = other
    return best


def _path(candidate: Candidate) -> Path:
    return tuple((record.name, record.parameters) for record in candidate.recipe if record.name != _BY_ITSELF)


def _step(before: Candidate, after: Candidate, found: Findings) -> Step:
    added = tuple(name for name, _ in _path(after)[len(_path(before)) :])
    passes = added or tuple(record.name for record in after.recipe)
    changes = (_change(before, after, name) for name in (found.objective, found.quality))
    return Step(before.name, after.name, passes, *changes)


def _change(before: Candidate, after: Candidate, name: str) -> Measurement | None:
    ours, theirs = after.measurement(name, ORIGINAL), before.measurement(name, ORIGINAL)
    if before.name == ORIGINAL or ours is None:
        return ours
    return None if theirs is None else difference(ours, theirs, before.name)
