"""What one engine call costs, as a line over the number of rows, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np

from fairway.core.manifest import Cost
from fairway.core.tensors import Tensors
from fairway.model import Model
from fairway.optimization.passes.base import Sample
from fairway.optimization.registry import passes

SIZES = (1, 2, 4, 8, 16, 32, 64)
_CALL_S = 0.1
"""Time spent per batch size, unless a single call takes longer."""


def fit_cost(seconds: Mapping[int, float]) -> Cost:
    """Fit ``base + row * n`` to seconds per call by batch size, with equal weight to equal relative errors.

    Examples
    --------
    >>> fit_cost({1: 12e-6, 2: 14e-6, 4: 18e-6})
    Cost(base_us=10.0, row_us=2.0)
    """
    rows = np.array(list(seconds), np.float64)
    spent = np.array(list(seconds.values()), np.float64) * 1e6
    design = np.stack([np.ones_like(rows), rows], axis=1) / spent[:, None]
    base, row = np.linalg.lstsq(design, np.ones_like(rows), rcond=None)[0] if len(rows) > 1 else (spent[0], 0.0)
    if base < 0:  # neither part of a time is negative: the line then goes through the origin, or is flat
        base, row = 0.0, float(np.mean(spent / rows))
    elif row < 0:
        base, row = float(np.mean(spent)), 0.0
    return Cost(*(float(f"{value:.3g}") for value in (base, row)))


def measure_cost(model: Model, sample: Sample, *, clock: Callable[[], float] = time.perf_counter) -> Cost:
    """Time the engine of ``model`` on real rows at several batch sizes, and fit; one that takes no batches, on one row.

    A pass whose rows depend on each other takes many rows of one request all the same.
    """
    known = passes()
    kept_apart = any(r.name in known and not known[r.name].independent_rows for r in model.manifest.recipe)
    only = sample.batch or (None if model.manifest.engine.batching or kept_apart else 1)
    sizes = (only,) if only else tuple(n for n in SIZES if n <= model.manifest.engine.max_batch) or (1,)
    return fit_cost({size: _time(model, sample_rows(sample, size), clock) for size in sizes})


def sample_rows(sample: Sample, size: int) -> Tensors:
    """The first ``size`` rows, repeated if there are fewer."""
    index = np.arange(size) % sample.rows
    return {name: np.ascontiguousarray(array[index]) for name, array in sample.feed.items()}


def _time(model: Model, feed: Tensors, clock: Callable[[], float]) -> float:
    """Median seconds per call after one that warms up."""
    model.infer(feed, raw=True)
    times: list[float] = []
    while (sum(times) < _CALL_S and len(times) < 500) or len(times) < 3:
        start = clock()
        model.infer(feed, raw=True)
        times.append(clock() - start)
    return median(times)
