"""Whether a slice is weak on rows that the search did not see."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fairway.evaluation.influence import spread
from fairway.evaluation.intervals import grouped_proportion_interval, proportion_interval, skewed_interval

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Mask
    from fairway.evaluation.slicing.losses import Loss

_FEWEST = 5
"""Rows or groups on either side without which nothing is tested."""


class Level(msgspec.Struct, frozen=True):
    """A mean loss of ``rows`` rows, and its interval; ``None`` where they are too few or too alike for one."""

    value: float
    low: float | None
    high: float | None
    rows: int


def worse_p_value(loss: Loss, inside: Mask, groups: Classes | None = None) -> float:
    """The one-sided p-value of "the rows inside have no higher mean loss than the others".

    Of a share over independent rows, Fisher's exact test. Of anything else, Welch's t, over groups where there are any,
    with as many degrees of freedom as the smaller side has: on losses, which have a long upper tail, that rejects too
    rarely rather than too often.

    Parameters
    ----------
    loss : Loss
    inside : bool array of shape (rows,)
    groups : int array of shape (rows,), optional

    References
    ----------
    R. A. Fisher, "The logic of inductive inference", Journal of the Royal Statistical Society 98(1), 1935.
    """
    from scipy.stats import hypergeom, t

    units = [_units(side, groups) for side in (inside, ~inside)]
    if min(units) < _FEWEST:
        return 1.0
    values = loss.values
    if loss.binary and groups is None:
        hits = int(values[inside].sum())
        return float(hypergeom.sf(hits - 1, len(values), int(values.sum()), int(inside.sum())))
    within, without = float(values[inside].mean()), float(values[~inside].mean())
    slopes = np.where(inside, (values - within) / inside.mean(), -(values - without) / (~inside).mean())
    over = spread(slopes, groups, floor=1.0 if loss.binary else float(values.std()))
    excess = within - without
    if over.error == 0:
        return 1.0
    return float(t.sf(excess / over.error, min(units) - 1))


def level(loss: Loss, chosen: Mask, confidence: float, groups: Classes | None = None) -> Level:
    """The mean loss of the chosen rows, with its interval."""
    values = loss.values[chosen]
    if not len(values):
        return Level(math.nan, None, None, 0)
    value = float(values.mean())
    own = None if groups is None else np.unique(groups[chosen], return_inverse=True)[1].reshape(-1)
    if loss.binary and own is None:
        ends: tuple[float, float] | None = proportion_interval(int(values.sum()), len(values), confidence)
    else:
        over = spread(values - value, own)
        by_group = loss.binary and own is not None
        ends = (
            grouped_proportion_interval(value, len(values), over, confidence)
            if by_group
            else skewed_interval(value, over, confidence)
        )
    low, high = ends or (None, None)
    return Level(value, low, high, len(values))


def _units(side: Mask, groups: Classes | None) -> int:
    return int(side.sum()) if groups is None else len(np.unique(groups[side]))


def halves(rows: int, groups: Classes | None, seed: int) -> tuple[Mask, Mask]:
    """Which rows are searched, and which confirm: a random half each, no group in both."""
    rng = np.random.default_rng([seed, 19])
    units = rows if groups is None else int(groups.max(initial=-1)) + 1
    drawn = np.zeros(units, dtype=bool)
    drawn[rng.permutation(units)[: units // 2]] = True
    searched = drawn if groups is None else drawn[groups]
    return searched, ~searched
