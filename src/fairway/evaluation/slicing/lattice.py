"""Conjunctions of predicates whose rows have a higher loss than the others: all pairs at once, and the best triples.

Sums over the rows of every pair of predicates are products of matrices, as in SliceLine. Slices are ordered by a lower
confidence bound of their excess loss: it grows with the excess and with the number of rows, so neither three bad rows nor
half of all rows that are a little worse come first.

References
----------
S. Sagadeeva, M. Boehm, "SliceLine: fast, linear-algebra-based slice finding for ML model debugging", SIGMOD 2021,
doi:10.1145/3448016.3457323.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Floats, Mask
    from fairway.evaluation.slicing.losses import Loss

Singles: TypeAlias = NDArray[np.float32]

_DOUBT = 3.0
"""Standard errors below the measured excess at which slices are compared."""
_PRIOR_ROWS = 10.0
"""Rows of average spread that are added to a slice's own: ten equal losses do not show that the next will be like them."""
_GAIN = 1.25
"""By how much a further predicate must raise the bound: of two slices that are as good, the simpler is told."""
_WORTH = 2.5
"""Standard errors by which a further predicate must part its rows from those that it leaves out."""
_FEWEST = 10
_LEAST_SHARE = 0.01
_MOST_SHARE = 0.5
_PAIRED = 300
"""Predicates whose pairs are all looked at; of more, the best. So many pairs of 50,000 rows take a second or two."""
_BEAM = 100
"""Pairs that a third predicate is tried on."""
_POOL = 300


class Candidate(NamedTuple):
    """A slice that the search suggests.

    Attributes
    ----------
    predicates : tuple of int
        Columns of the search's matrix, in order.
    loss : int
        By which of the losses it is worse.
    """

    predicates: tuple[int, ...]
    loss: int


def find_candidates(
    members: Mask, losses: Sequence[Loss], *, most: int = 10, depth: int = 3, allowed: Mask | None = None
) -> list[Candidate]:
    """The conjunctions of up to ``depth`` predicates whose rows are worst, worst first; overlapping ones are left out.

    Parameters
    ----------
    members : bool array of shape (rows, predicates)
        Which rows satisfy which predicate.
    losses : sequence of Loss, of the same rows
    most : int
        How many to give at most.
    depth : int
    allowed : bool array of shape (losses, predicates), optional
        Which predicates are tried by which loss; by default, all.

    Notes
    -----
    Of slices that share rows, the worst is kept, and another only if its other rows are weak as well.
    """
    rows, columns = members.shape
    if rows < 2 * _FEWEST or not columns:
        return []
    inside = members.astype(np.float32)
    pool: list[tuple[float, Candidate]] = []
    for place, loss in enumerate(losses):
        usable = np.arange(columns) if allowed is None else np.flatnonzero(allowed[place])
        pool += [
            (bound, Candidate(tuple(sorted(int(usable[c]) for c in chosen)), place))
            for bound, chosen in _best(inside[:, usable] if allowed is not None else inside, loss, depth)
        ]
    return _disjoint(members, losses, pool, most)


def _best(inside: Singles, loss: Loss, depth: int) -> list[tuple[float, tuple[int, ...]]]:
    """The best conjunctions by one loss, with their bounds, best first."""
    sums = _Sums(loss)
    single = sums.bounds(inside)
    found: dict[tuple[int, ...], float] = {(int(c),): float(single[c]) for c in np.flatnonzero(np.isfinite(single))}
    kept = np.flatnonzero(inside.any(axis=0))
    if len(kept) > _PAIRED:
        kept = np.sort(kept[np.argsort(-single[kept], kind="stable")[:_PAIRED]])
    beam: list[tuple[int, ...]] = [(int(c),) for c in kept]
    parents: dict[tuple[int, ...], float] = {(int(c),): float(single[c]) for c in kept}
    for level in range(2, depth + 1):
        masks = inside[:, [chosen[0] for chosen in beam]].copy()
        for further in range(1, level - 1):
            masks *= inside[:, [chosen[further] for chosen in beam]]
        bounds = sums.bounds(inside[:, kept], within=masks)
        before = np.array([parents[chosen] for chosen in beam])
        floor = np.maximum(np.maximum(before[:, None], single[kept][None, :]), 0) * _GAIN
        better = np.argwhere(np.isfinite(bounds) & (bounds > floor))
        grown: dict[tuple[int, ...], float] = {}
        for i, j in better:
            chosen = tuple(sorted({*beam[i], int(kept[j])}))
            if len(chosen) == level:
                grown[chosen] = float(bounds[i, j])
        found |= grown
        beam = sorted(grown, key=lambda chosen: (-grown[chosen], chosen))[:_BEAM]
        parents = grown
        if not beam:
            break
    told = [chosen for chosen in found if found[chosen] > 0 and not _said_shorter(chosen, found)]
    order = sorted(told, key=lambda chosen: (-found[chosen], chosen))
    return [(found[chosen], chosen) for chosen in order[:_POOL]]


def _said_shorter(chosen: tuple[int, ...], found: dict[tuple[int, ...], float]) -> bool:
    """Whether some of the predicates are about as good as all."""
    parts = (part for size in range(1, len(chosen)) for part in combinations(chosen, size))
    return any(found.get(part, -np.inf) * _GAIN >= found[chosen] for part in parts)


class _Sums:
    """Counts and sums of one loss over the rows of slices, and the bound that follows."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._mean = float(loss.values.mean())
        self._scale = float(loss.values.std()) or 1.0
        centered = ((loss.values - self._mean) / self._scale).astype(np.float32)
        self._rows = len(centered)
        self._terms = np.stack([np.ones_like(centered), centered, centered**2])

    def bounds(self, inside: Singles, within: Singles | None = None) -> Floats:
        """The lower bound of each slice's excess loss, in standard deviations; ``-inf`` where it is no slice.

        Of the predicates ``inside`` alone, or of each slice of ``within`` joined with each of them: then ``-inf``, too, where
        a slice is not worse than what either part has besides it.
        """
        single = (self._terms @ inside).astype(np.float64)
        if within is None:
            return self._bound(single)
        beam = (self._terms @ within).astype(np.float64)
        count, total = ((within * term[:, None]).T @ inside for term in self._terms[:2])
        count, total = count.astype(np.float64), total.astype(np.float64)
        sums = np.stack([count, total, self._squares(count, total, within, inside)])
        narrower = np.ones(count.shape, dtype=bool)
        for whole in (beam[:, :, None], single[:, None, :]):
            narrower &= (whole[0] - sums[0] > 0.5) & (_excess(sums, whole - sums, _WORTH) > 0)
        bounds: Floats = np.where(narrower, self._bound(sums), -np.inf)
        return bounds

    def _squares(self, count: Floats, total: Floats, within: Singles, inside: Singles) -> Floats:
        if self._loss.binary:  # of two values, squares follow from counts and sums
            low, high = float(self._terms[1].min()), float(self._terms[1].max())
            return (low + high) * total - low * high * count
        squares: Floats = ((within * self._terms[2][:, None]).T @ inside).astype(np.float64)
        return squares

    def left(self, masks: Singles, uncovered: Singles) -> Floats:
        """The bounds of slices' rows that no other covers, against all rows that none covers."""
        terms = self._terms * uncovered
        return self._bound((terms @ masks).astype(np.float64), terms.sum(axis=1, dtype=np.float64))

    def _bound(self, sums: Floats, everything: Floats | None = None) -> Floats:
        whole = self._terms.sum(axis=1, dtype=np.float64) if everything is None else everything
        rest = whole.reshape(3, *[1] * (sums.ndim - 1)) - sums
        least = max(_FEWEST, _LEAST_SHARE * self._rows)
        usable = (sums[0] >= least) & (sums[0] <= _MOST_SHARE * self._rows) & (rest[0] >= least)
        mean, other = (each[1] / np.maximum(each[0], 1) * self._scale + self._mean for each in (sums, rest))
        bound: Floats = np.where(usable & self._loss.matters(mean, other), _excess(sums, rest, _DOUBT), -np.inf)
        return bound


def _excess(sums: Floats, rest: Floats, doubt: float) -> Floats:
    """By how much the mean of some rows exceeds that of others, less ``doubt`` standard errors.

    Parameters
    ----------
    sums, rest : float array of shape (3, ...)
        Count, sum and sum of squares of values with standard deviation 1.
    """
    means, errors = [], []
    for count, total, square in (sums, rest):
        rows = np.maximum(count, 1.0)
        mean = total / rows
        spread = (np.maximum(square - rows * mean**2, 0) + _PRIOR_ROWS) / (rows - 1 + _PRIOR_ROWS)
        means.append(mean)
        errors.append(spread / rows)
    excess: Floats = means[0] - means[1] - doubt * np.sqrt(errors[0] + errors[1])
    return excess


def _disjoint(members: Mask, losses: Sequence[Loss], pool: list[tuple[float, Candidate]], most: int) -> list[Candidate]:
    """The best of the pool, each by the rows that those before it leave; by overconfidence, after all others."""
    if not pool:
        return []
    pool = sorted(pool, key=lambda each: (-each[0], each[1]))
    masks = np.stack([members[:, each.predicates].all(axis=1) for _, each in pool], axis=1)
    singles = masks.astype(np.float32)
    by_loss = [np.array([each.loss == place for _, each in pool]) for place in range(len(losses))]
    sums = [_Sums(loss) for loss in losses]
    uncovered = np.ones(len(members), dtype=np.float32)
    chosen: list[Candidate] = []
    bounds = np.array([bound for bound, _ in pool])
    later = np.array([losses[each.loss].signed for _, each in pool])
    while len(chosen) < most and float(bounds.max()) > 0:
        best = int(np.where(later, -np.inf, bounds).argmax()) if (bounds[~later] > 0).any() else int(bounds.argmax())
        chosen.append(pool[best][1])
        uncovered *= 1 - singles[:, best]
        for place, own in enumerate(by_loss):
            bounds[own] = sums[place].left(singles[:, own], uncovered)
    return chosen
