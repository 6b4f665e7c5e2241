"""Which reference rows calibrate: drawn by a seed, so that a recipe finds the same ones again."""

from __future__ import annotations

import numpy as np

from fairway.bundle.format import Bundle
from fairway.core.errors import InvalidData
from fairway.model import Model
from fairway.optimization.passes.base import Sample
from fairway.sources.tables import Table


def draw_sample(bundle: Bundle, reference: Table, *, rows: int, seed: int) -> Sample:
    """Draw ``rows`` of ``reference`` (all, if there are fewer), as the graph of ``bundle`` gets them.

    Raises
    ------
    InvalidData
        If there is no row at all, or they do not fit the model.
    """
    if not reference.rows:
        raise InvalidData("the reference data has no rows; calibration needs some")
    count = min(rows, reference.rows)
    drawn = np.sort(np.random.default_rng(seed).choice(reference.rows, count, replace=False))
    with Model(bundle) as model:
        feed = model.prepare(reference.feed(model.inputs, drawn))
        fixed = {spec.shape[0] for spec in model.raw_inputs if spec.shape and spec.shape[0] > 0}
        made = frozenset(feed) - {spec.name for spec in model.inputs}
    return Sample(feed, count, fixed.pop() if len(fixed) == 1 else None, made)
