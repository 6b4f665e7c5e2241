"""How much each row moves a metric, and what follows: its standard error, a test, and whether few rows decide it.

A metric of many rows moves almost linearly with the weight of each. The slopes (the influence function at each row) sum to
zero, and their spread over independent units, which are rows or whole groups of rows, is the metric's standard error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from fairway.evaluation import roc
from fairway.evaluation.predictions import Classified, Regressed, Scored
from fairway.evaluation.resampling import class_losses

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats

LINEAR = (
    *("accuracy_score", "roc_auc_score", "log_loss"),
    *("mean_absolute_error", "root_mean_squared_error", "r2_score"),
)
"""The metrics whose influence is known in closed form."""


class Spread(NamedTuple):
    """How a metric varies over independent units.

    Attributes
    ----------
    units : int
        Rows, or groups of rows.
    deviation : float
        Of one unit's contribution: the metric's standard error times the square root of ``units``.
    skewness : float
    freedom : float
        Degrees of freedom of ``deviation``.
    """

    units: int
    deviation: float
    skewness: float
    freedom: float

    @property
    def error(self) -> float:
        """The metric's standard error."""
        return self.deviation / math.sqrt(self.units)


def influence(name: str, rows: Scored) -> Floats:
    """By how much a share of weight moved to each row would change one of the ``LINEAR`` metrics; shape (rows,), mean 0.

    That of the AUC is scaled so that its mean square over the rows is DeLong's variance (of two classes).
    """
    if name == "roc_auc_score":
        return roc.areas(cast(Classified, rows)).influence
    if name == "r2_score":
        truth = cast(Regressed, rows).truth
        centered, squared = (truth - truth.mean()) ** 2, terms(name, rows)
        variance = float(centered.mean())
        if variance == 0:
            return np.zeros(len(rows))
        slopes: Floats = (squared.mean() / variance * centered - squared) / variance
        return slopes
    values = terms(name, rows)
    slopes = values - values.mean()
    if name == "root_mean_squared_error":
        slopes = slopes / max(2 * math.sqrt(values.mean()), np.finfo(float).tiny)
    return slopes


def terms(name: str, rows: Scored) -> Floats:
    """What a metric is the mean of (``r2_score`` and RMSE: of squared errors), one value of 0 or more per row.

    The AUC, which is no mean, has how far each row moves it.
    """
    if name == "roc_auc_score":
        return np.abs(influence(name, rows))
    if isinstance(rows, Classified):
        return class_losses(rows) if name == "log_loss" else (rows.truth == rows.predicted).astype(np.float64)
    errors = np.abs(cast(Regressed, rows).predicted - cast(Regressed, rows).truth)
    return errors if name == "mean_absolute_error" else errors**2


def effective_units(values: Floats, groups: Classes | None) -> float:
    """Of how many equal units a sum would be that varies as this one: all, if each contributes alike; 1 if one is all.

    References
    ----------
    L. Kish, "Survey Sampling", Wiley 1965, sec. 11.7 (the effective sample size of unequal weights).

    Examples
    --------
    >>> effective_units(np.ones(50), None), effective_units(np.array([0.0, 0, 9]), None)
    (50.0, 1.0)
    """
    sums = values if groups is None else np.bincount(groups, weights=values)
    squares = float((sums**2).sum())
    return float(sums.sum()) ** 2 / squares if squares else float(len(sums))


def spread(slopes: Floats, groups: Classes | None, strata: Classes | None = None, *, floor: float = 0.0) -> Spread:
    """The spread of a metric from its influence.

    Parameters
    ----------
    slopes : float array of shape (rows,)
    groups : int array of shape (rows,), or None
        Rows of one group are not independent of each other; their slopes are added up.
    strata : int array of shape (rows,), or None
        The number of rows of each stratum was fixed beforehand, so differences between strata are no chance.
    floor : float
        Where all units contribute alike: what one more, that these never showed, might; half a unit of each sign.
    """
    freedom = len(slopes) - 1
    if strata is not None:
        counts = np.maximum(np.bincount(strata), 1)
        slopes = slopes - (np.bincount(strata, weights=slopes) / counts)[strata]
        freedom = len(slopes) - len(np.unique(strata))
    values: Floats = slopes
    if groups is not None:
        sums = np.bincount(groups, weights=slopes)
        values = np.asarray(sums * (len(sums) / len(slopes)), np.float64)
        freedom = len(sums) - 1
    variance = float((values**2).sum()) / max(freedom, 1)
    skewness = float((values**3).mean()) / variance**1.5 if variance > 0 else 0.0
    if variance <= 1e-24 * floor**2:
        variance = floor**2 / len(values)
    return Spread(len(values), math.sqrt(variance), skewness, freedom)
