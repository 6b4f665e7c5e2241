"""A first, short look at what a form costs beside the original: it guides the search, and decides nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from fairway.bundle.format import Bundle
from fairway.model import Model
from fairway.optimization.cost import sample_rows
from fairway.optimization.passes.base import Sample

_S = 0.4
_PAIRS = 5
_BATCH = 16


def cost_ratio(
    candidate: Bundle,
    original: Bundle,
    sample: Sample,
    objective: str,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """What ``candidate`` costs as a multiple of ``original``: below 1 is better.

    Size for objectives of size and memory; else the time of an engine's call on real rows, one row for a latency and
    several for all else. The two take turns, so that what slows the machine down slows both.
    """
    if objective in ("size_mb", "memory_mb"):
        return candidate.size_bytes / original.size_bytes
    size = sample.batch or (1 if objective.startswith("latency_") else _BATCH)
    feed = sample_rows(sample, size)
    spent: tuple[list[float], list[float]] = ([], [])
    with Model(original) as theirs, Model(candidate) as ours:
        for model in (ours, theirs):
            model.infer(feed, raw=True)
        while (sum(map(sum, spent)) < _S and len(spent[0]) < 500) or len(spent[0]) < _PAIRS:
            for times, model in zip(spent, (ours, theirs), strict=True):
                start = clock()
                model.infer(feed, raw=True)
                times.append(clock() - start)
    return median(spent[0]) / median(spent[1])
