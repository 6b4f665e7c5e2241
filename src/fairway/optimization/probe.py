"""A first, short look at what a form costs beside the original: it guides the search, and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from fairway.bundle.format import Bundle
from fairway.core.tensors import Tensors
from fairway.model import Model
from fairway.optimization.cost import sample_rows
from fairway.optimization.passes.base import Sample

_S = 0.4
_PAIRS = 5
_BATCH = 16
_REQUEST_S = 50e-6
"""What a request costs beside the engine's call, nearly: a tiny model gains nothing from a call that is a little shorter."""


_LOADS = ("load_ms", "first_request_ms")


def cost_ratio(
    candidate: Bundle,
    original: Bundle,
    sample: Sample,
    objective: str,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """What ``candidate`` costs as a multiple of ``original``: below 1 is better.

    Size for objectives of size and memory, the time to a first answer for those of loading; else the time of an engine's
    calls on real rows: one row for a latency and several for all else, which a form that does not batch is given one by
    one, as a server would. The two take turns, so that what slows the machine down slows both.
    """
    if objective in ("size_mb", "memory_mb"):
        return candidate.size_bytes / original.size_bytes
    if objective in _LOADS:
        row = sample_rows(sample, sample.batch or 1)
        return _in_turns(lambda: _load(candidate, row), lambda: _load(original, row), clock)
    size = sample.batch or (1 if objective.startswith("latency_") else _BATCH)
    rows = sample_rows(sample, size)
    with Model(original) as theirs, Model(candidate) as ours:
        fixed = sample.batch is not None
        return _in_turns(lambda: _answer(ours, rows, size, fixed), lambda: _answer(theirs, rows, size, fixed), clock)


def _in_turns(ours: Callable[[], None], theirs: Callable[[], None], clock: Callable[[], float]) -> float:
    """The time of the one as a multiple of the other's, each called once before it is measured."""
    spent: tuple[list[float], list[float]] = ([], [])
    ours()
    theirs()
    while (sum(map(sum, spent)) < _S and len(spent[0]) < 500) or len(spent[0]) < _PAIRS:
        for times, call in zip(spent, (ours, theirs), strict=True):
            start = clock()
            call()
            times.append(clock() - start)
    return (median(spent[0]) + _REQUEST_S) / (median(spent[1]) + _REQUEST_S)


def _answer(model: Model, feed: Tensors, rows: int, fixed: bool) -> None:
    if model.manifest.engine.batching or fixed:
        model.infer(feed, raw=True)
        return
    for row in range(rows):
        model.infer({name: array[row : row + 1] for name, array in feed.items()}, raw=True)


def _load(bundle: Bundle, feed: Tensors) -> None:
    """To the first answer: engines put work off until then."""
    with Model(bundle) as model:
        model.infer(feed, raw=True)
