"""Rows that are scored by counting: per independent unit some statistics, and metrics that are functions of their sums.

A unit is what was drawn independently: a row, a sentence, an image, or (ranking) a query with all of its rows. Micro-F1 is a
function of the summed hits, predictions and truths; perplexity of the summed losses and tokens; mIoU of the intersections and
unions per class. One mechanism serves them all: the value from the sums, the influence of each unit from the function's
gradient, and from that intervals, tests and comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats, Mask

Items: TypeAlias = Sequence[Any] | NDArray[Any]
"""One per row: an array, or a list where no array fits."""

_STEP = 1e-5
_GRADIENT_COLUMNS = 256
_SHOWN = 80


class Scale(StrEnum):
    """On which scale a metric's sampling distribution is nearly symmetric: there its interval is made, and carried back."""

    PLAIN = "plain"
    LOGIT = "logit"
    LOG = "log"
    FISHER = "Fisher's z"


class Form(Protocol):
    """How one metric follows from tallied rows.

    Attributes
    ----------
    low, high : float
        Its range.
    scale : Scale
    undefined : str
        Why :meth:`value` is NaN, where it is.
    counted : bool
        Whether :meth:`draw` needs whole numbers of units.
    """

    @property
    def low(self) -> float: ...  # noqa: D102

    @property
    def high(self) -> float: ...  # noqa: D102

    @property
    def scale(self) -> Scale: ...  # noqa: D102

    @property
    def undefined(self) -> str: ...  # noqa: D102

    @property
    def counted(self) -> bool: ...  # noqa: D102

    def value(self, rows: Tallied) -> float:
        """The metric over all units; NaN where they do not define it."""
        ...

    def influence(self, rows: Tallied, pseudo: float = 0.0) -> Influence | None:
        """How each unit moves the metric, pseudo-units being worth ``pseudo`` units; ``None``: weights must be drawn."""
        ...

    def draw(self, rows: Tallied, weights: Floats) -> Floats:
        """The metric of weighted units, of shape (sets,), for weights of shape (sets, units). Only without an influence."""
        ...

    def select(self, chosen: Classes) -> Form:
        """The same metric of some of the units."""
        ...


@dataclass(frozen=True)
class Influence:
    """How a metric moves with the weight of each unit.

    Attributes
    ----------
    value : float
        The metric, the pseudo-units included.
    slopes : float array of shape (units,)
        By how much a share of weight moved to each unit would change it.
    unseen : float array of shape (pseudo,)
        The same for pseudo-units: a flawless and a wholly wrong one of average size. What the data never showed must not be
        taken for impossible. Empty where there are none.
    """

    value: float
    slopes: Floats
    unseen: Floats = field(default_factory=lambda: np.empty(0))


Ends = Callable[..., tuple[Sequence["Floats"], Sequence["Floats"]]]


@dataclass(frozen=True)
class Sums:
    """A metric that is a smooth function of the sums of some blocks of statistics.

    Attributes
    ----------
    blocks : tuple of str
    function : callable
        Takes the blocks' sums, each of shape (sets, columns), and gives shape (sets,); NaN where it is not defined.
    low, high, scale, undefined
        See :class:`Form`.
    ends : callable or None
        From the blocks' means, the blocks of a flawless and of a wholly wrong unit; ``None`` without bounds.
    share : bool
        The metric is the share of units whose (only) first block is 1: then its interval is that of a proportion.
    """

    blocks: tuple[str, ...]
    function: Callable[..., Floats]
    low: float = 0.0
    high: float = 1.0
    scale: Scale = Scale.LOGIT
    undefined: str = "there is nothing to count in these rows"
    ends: Ends | None = None
    share: bool = False
    counted: bool = False

    def value(self, rows: Tallied) -> float:
        """See :class:`Form`."""
        return float(self.function(*(rows.blocks[name].sum(axis=0, dtype=np.float64)[None] for name in self.blocks))[0])

    def influence(self, rows: Tallied, pseudo: float = 0.0) -> Influence:
        """See :class:`Form`."""
        blocks = [rows.blocks[name] for name in self.blocks]
        sums = [block.sum(axis=0, dtype=np.float64) for block in blocks]
        means = [each / rows.units for each in sums]
        ends = self.ends(*means) if self.ends is not None else ()
        for end in ends:
            sums = [each + pseudo * more for each, more in zip(sums, end, strict=True)]
        total = rows.units + pseudo * len(ends)
        gradient = _gradient(self.function, sums)
        centers = [each / total for each in sums]
        # the metric is a function of sums: a unit of weight more changes them by its statistics, less the mean of all
        slopes = np.zeros(rows.units)
        for block, center, slope in zip(blocks, centers, gradient, strict=True):
            slopes += block @ (slope * total) - float(center @ slope) * total
        unseen = [
            sum(
                float((part - center) @ slope) * total
                for part, center, slope in zip(end, centers, gradient, strict=True)
            )
            for end in ends
        ]
        return Influence(float(self.function(*(each[None] for each in sums))[0]), slopes, np.array(unseen))

    def draw(self, rows: Tallied, weights: Floats) -> Floats:
        """See :class:`Form`."""
        scaled = weights * (rows.units / weights.sum(axis=1, keepdims=True))
        return self.function(*(scaled @ rows.blocks[name].astype(np.float64) for name in self.blocks))

    def select(self, chosen: Classes) -> Sums:  # noqa: ARG002
        """See :class:`Form`."""
        return self


@dataclass(frozen=True)
class Tallied:
    """Rows scored by counting.

    Attributes
    ----------
    task : str
    blocks : dict of str to array of shape (units, columns)
        Statistics that sums are made of, in any number type.
    forms : dict of str to Form
        The metrics that these rows have, by name.
    loss : float array of shape (units,)
        How wrong each unit is, never below 0, 0 being flawless.
    truth, predicted : sequence
        Per row of the table what was wanted and what the model said, in the task's own form: what metrics of the user's own
        are given, and what is shown.
    more : dict of str to sequence
        More of that kind, such as the scores of the labels.
    labels : tuple of str
    unit_of : int array of shape (rows,), or None
        Which unit each row belongs to; ``None``: every row is one.
    groups : int array of shape (units,), or None
        Which group each unit belongs to, from 0, none left out. ``None``: units are independent.
    cannot : dict of str to str
        Metrics of the task that this model can never be given, and why.
    memo : dict
        What was computed from these rows and is needed again.
    """

    task: str
    blocks: Mapping[str, NDArray[Any]]
    forms: Mapping[str, Form]
    loss: Floats
    truth: Items
    predicted: Items
    more: Mapping[str, Items] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    unit_of: Classes | None = None
    groups: Classes | None = None
    cannot: Mapping[str, str] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.loss) if self.unit_of is None else len(self.unit_of)

    @property
    def units(self) -> int:
        """Number of independent units."""
        return len(self.loss)

    @property
    def row_groups(self) -> Classes | None:
        """Which rows belong together: those of one group, or of one unit; ``None`` if every row stands for itself."""
        if self.unit_of is None or self.groups is None:
            return self.unit_of if self.groups is None else self.groups
        return self.groups[self.unit_of]

    def select(self, mask: Mask) -> Tallied:
        """The rows of a mask, or of ascending indices. A unit of several rows is in as a whole if any of its rows is."""
        rows = np.flatnonzero(mask) if mask.dtype == np.bool_ else mask.astype(np.intp)
        chosen = rows if self.unit_of is None else np.unique(self.unit_of[rows])
        return replace(
            self,
            blocks={name: block[chosen] for name, block in self.blocks.items()},
            forms={name: form.select(chosen) for name, form in self.forms.items()},
            loss=self.loss[chosen],
            truth=taken(self.truth, rows),
            predicted=taken(self.predicted, rows),
            more={name: taken(values, rows) for name, values in self.more.items()},
            unit_of=None if self.unit_of is None else np.searchsorted(chosen, self.unit_of[rows]),
            groups=None if self.groups is None else np.unique(self.groups[chosen], return_inverse=True)[1],
        )

    def grouped(self, groups: Classes) -> Tallied:
        """The same rows, knowing the group of each: that of a unit is the group of its first row."""
        if self.unit_of is not None:
            groups = groups[np.unique(self.unit_of, return_index=True)[1]]
        return replace(self, groups=np.unique(groups, return_inverse=True)[1])

    def badness(self) -> Floats:
        """How wrong each row is, of shape (rows,): the loss of its unit, whose meaning is the task's."""
        return self.loss if self.unit_of is None else self.loss[self.unit_of]

    def right(self) -> Mask:
        """The rows with nothing wrong."""
        flawless: Mask = self.badness() <= 0
        return flawless

    def said(self, row: int) -> tuple[str, str]:
        """The truth and the answer of one row, to show."""
        return _short(self.truth[row]), _short(self.predicted[row])


def mean_of(block: str, over: str = "one", **fields: Any) -> Sums:
    """The form of a ratio of two sums: a mean per unit (``over`` "one"), or per token and the like."""
    given: dict[str, Any] = {"ends": _ratio_ends, **fields}
    return Sums((block, over), ratio, **given)


def ratio(value: Floats, over: Floats) -> Floats:
    """The sum of all columns over the sum of all columns; NaN over nothing."""
    return divided(value.sum(axis=1), over.sum(axis=1), math.nan)


def divided(above: Floats, below: Floats, otherwise: float = 0.0) -> Floats:
    """``above / below``, or ``otherwise`` where ``below`` is 0."""
    return np.divide(above, below, out=np.full_like(above, otherwise, dtype=np.float64), where=below > 0)


def _ratio_ends(value: Floats, over: Floats) -> tuple[Sequence[Floats], Sequence[Floats]]:
    whole = np.zeros_like(value)
    whole[0] = over.sum()
    return (whole, over), (np.zeros_like(value), over)


def overlap_ends(hit: Floats, said: Floats, true: Floats) -> tuple[Sequence[Floats], Sequence[Floats]]:
    """Of metrics of hits, predictions and truths: everything found and nothing else, or nothing found."""
    return (true, true, true), (np.zeros_like(hit), said, true)


def _gradient(function: Callable[..., Floats], sums: Sequence[Floats]) -> list[Floats]:
    """By central differences; a column of zeros has none, since no unit has anything there."""
    joined = np.concatenate(sums)
    splits = np.cumsum([len(each) for each in sums])[:-1]
    found = np.zeros(len(joined))
    live = np.flatnonzero(joined != 0)
    for start in range(0, len(live), _GRADIENT_COLUMNS):
        columns = live[start : start + _GRADIENT_COLUMNS]
        steps = _STEP * np.abs(joined[columns])
        moved = np.zeros((len(columns), len(joined)))
        moved[np.arange(len(columns)), columns] = steps
        up, down = (function(*np.split(joined + sign * moved, splits, axis=1)) for sign in (1, -1))
        found[columns] = (up - down) / (2 * steps)
    return np.split(found, splits)


def taken(values: Items, rows: Classes) -> Items:
    """Some items of an array or a list, in the order of ``rows``."""
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows.tolist()]


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, list | tuple | np.ndarray):
        text = ", ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in value) or "nothing"
    else:
        text = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
