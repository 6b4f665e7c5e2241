"""What a journal says of each point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from fairway.core.gate import Outcome
from fairway.optimization.search.journal import Event, Examined, Made, Outpaced, Probed, Unmade
from fairway.optimization.search.space import Point, key


class Trial(msgspec.Struct, kw_only=True):
    """One point that was begun.

    Attributes
    ----------
    point : Point
    origin : str
        What proposed it.
    identity : str
    size_bytes : int
    unmade : Unmade or None
    ratio : float or None
        Its objective as a multiple of the original's.
    outcomes : list of Outcome
        Of the gate's limits on quality, rung by rung.
    harm : float or None
        On the rows of the last of them; see :class:`~fairway.optimization.search.journal.Examined`.
    reason : str
        What the last of them says, or why it was left.
    outpaced : bool
    """

    point: Point
    origin: str
    identity: str = ""
    size_bytes: int = 0
    unmade: Unmade | None = None
    ratio: float | None = None
    outcomes: list[Outcome] = []
    harm: float | None = None
    reason: str = ""
    outpaced: bool = False

    @property
    def refused(self) -> bool:
        """Whether some rung's rows say that it breaks a limit."""
        return Outcome.FAILED in self.outcomes

    def finished(self, rungs: int) -> bool:
        """Whether there is nothing more to learn of it before the final rounds."""
        return self.unmade is not None or self.outpaced or self.refused or len(self.outcomes) == rungs

    def keeps(self, rungs: int) -> bool:
        """Whether it keeps the limits on all rows."""
        return len(self.outcomes) == rungs and self.outcomes[-1] is Outcome.PASSED

    def may_keep(self, rungs: int) -> bool:
        """Whether it keeps them, or all rows could not tell."""
        return len(self.outcomes) == rungs and not self.refused


def trials(events: Iterable[Event]) -> dict[str, Trial]:
    """Every point begun, by its key, in order."""
    found: dict[str, Trial] = {}
    for event in events:
        match event:
            case Made(point, origin, identity, size):
                found[key(point)] = Trial(point=point, origin=origin, identity=identity, size_bytes=size)
            case Unmade(point, origin):
                found[key(point)] = Trial(point=point, origin=origin, unmade=event, reason=event.reason)
            case Probed(point, ratio):
                found[key(point)].ratio = ratio
            case Examined(point, _, outcome, harm, reason):
                trial = found[key(point)]
                trial.outcomes.append(outcome)
                trial.harm, trial.reason = harm, reason
            case Outpaced(point, reason):
                found[key(point)].outpaced, found[key(point)].reason = True, reason
            case _:
                pass
    return found


def best(found: Iterable[Trial], rungs: int) -> Trial | None:
    """The fastest of those that keep the limits; of equals, the first."""
    keeping = [trial for trial in found if trial.keeps(rungs) and trial.ratio is not None]
    return min(keeping, key=lambda trial: trial.ratio or 0.0, default=None)


def finalists(found: Iterable[Trial], rungs: int, count: int) -> list[Trial]:
    """The fastest that keep the limits, and the smallest of the rest.

    If there is room, those come, too, of which all rows could not tell.
    """
    left = sorted((t for t in found if t.may_keep(rungs)), key=lambda t: (not t.keeps(rungs), t.ratio))
    first, rest = left[: count - 1], left[count - 1 :]
    return [*first, *sorted(rest, key=lambda t: (not t.keeps(rungs), t.size_bytes, t.ratio))[:1]]


_TIMES = 3
"""So often a choice fails, and never works, before it is held to be the reason."""


def known_bad(found: Sequence[Trial]) -> set[tuple[str, object]]:
    """Choices that are the reason why a point could not be made.

    Either that was seen as it was made, or no other can be it: every other choice of that point has worked elsewhere. Or it has
    been tried three times, and never worked: what it was tried with changes, and the failure does not.

    Examples
    --------
    >>> worked = Trial(point={"kind": "float", "engine": "a"}, origin="")
    >>> broken = {"kind": "float", "engine": "b"}
    >>> known_bad([worked, Trial(point=broken, origin="", unmade=Unmade(broken, "", "no such engine"))])
    {('engine', 'b')}
    """
    worked = {choice for trial in found if trial.unmade is None for choice in trial.point.items()}
    failed = Counter(choice for trial in found if trial.unmade is not None for choice in trial.point.items())
    bad: set[tuple[str, object]] = {c for c, times in failed.items() if times >= _TIMES and c not in worked}
    for trial in found:
        if trial.unmade is None:
            continue
        suspects = {choice for choice in trial.point.items() if choice not in worked}
        known = {choice for choice in suspects if choice[0] == trial.unmade.blamed}
        bad |= known or (suspects if len(suspects) == 1 else set())
    return bad
