"""What a slice can be worse by: one number per row, the lower the better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fairway.evaluation.predictions import Classified, Regressed
from fairway.evaluation.resampling import class_losses

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Floats, Mask, Scored

_TIMES = 1.25
_SHARE = 0.02


@dataclass(frozen=True)
class Loss:
    """One loss of every row.

    Attributes
    ----------
    name : str
        Of its mean.
    values : float array of shape (rows,)
    binary : bool
        Whether every value is 0 or 1, so that its mean is a share.
    signed : bool
        Whether its mean may be negative: it is then compared by differences, not as a multiple.
    """

    name: str
    values: Floats
    binary: bool = False
    signed: bool = False

    def matters(self, inside: Floats, outside: Floats) -> Mask:
        """Whether a mean inside is so far above that outside that somebody should know: a quarter, or 2 % of all rows."""
        enough: Mask = inside > (outside + _SHARE if self.signed else outside * _TIMES)
        return enough


def row_losses(rows: Scored) -> tuple[Loss, ...]:
    """Every loss of these rows.

    Of a classifier with probabilities there are three: whether the class is wrong; the log loss; and by how much the
    probability of the predicted class exceeds being right, whose mean is how overconfident the model is. Of other tasks than
    classification and regression there is one, which each task defines.
    """
    if isinstance(rows, Regressed):
        return (Loss("absolute error", np.abs(rows.predicted - rows.truth)),)
    if not isinstance(rows, Classified):
        return (Loss("loss per row", rows.badness()),)
    wrong = (rows.predicted != rows.truth).astype(np.float64)
    if rows.probabilities is None:
        return (Loss("error rate", wrong, binary=True),)
    excess = rows.probabilities.max(axis=1, initial=0.0) - (1 - wrong)
    return (
        Loss("error rate", wrong, binary=True),
        Loss("log loss", class_losses(rows)),
        Loss("overconfidence", excess, signed=True),
    )
