"""What a search tries before all else: what was good in earlier ones, then what the settings name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from fairway.core.manifest import PassRecord
from fairway.optimization.forms import Forms
from fairway.optimization.search.journal import Began, Start, read_journal
from fairway.optimization.search.space import Point, key
from fairway.optimization.search.trials import best, trials
from fairway.optimization.settings import OptimizationSettings
from fairway.optimization.torch_forms import TorchForms


def starts(
    forms: Forms | TorchForms,
    settings: OptimizationSettings,
    earlier: Sequence[Path],
    known: Sequence[Sequence[PassRecord]],
) -> tuple[Start, ...]:
    """Points to try first, each once. Without further trials, only those that the settings name."""
    found: dict[str, Start] = {}
    if settings.trials:
        for point in (*_best(earlier), *(p for records in known if (p := forms.matching(records)))):
            if forms.space.holds(point):
                found.setdefault(key(point), Start(point, "earlier"))
    for name in forms.named:
        point = forms.point(name)
        found.setdefault(key(point), Start(point))
    return tuple(found.values())


def _best(journals: Sequence[Path]) -> Iterator[Point]:
    """The fastest form of each search that kept the gate's limits there."""
    for path in journals:
        try:
            events = read_journal(path)
        except msgspec.DecodeError:  # another version's
            continue
        if events and isinstance(events[0], Began) and (won := best(trials(events).values(), events[0].plan.rungs)):
            yield won.point
