"""Draws of a bootstrap in chunks: the same numbers whatever computes the chunks, and however many at once.

Rows get random weights with a Dirichlet distribution (Rubin's Bayesian bootstrap) instead of random counts: the same spread,
but no resample ever loses a class. Weights are drawn unscaled, Exponential of one row, Gamma of several that count alike. A
chunk is some of the resamples, with a generator of its own, seeded by the chunk's number.

Sums over more than 20,000 rows are drawn as what they are close to. Rows that may make up a ten-thousandth of the variance
of any linear combination of the sums (their leverage) have weights of their own; the sum of all others is normal, with its
exact mean and covariance. The skewness that this leaves out, its largest error, is at most 0.02 beside the whole, which moves
the ends of a 95 % interval by a hundredth of a standard error.

References
----------
D. B. Rubin, "The Bayesian bootstrap", Annals of Statistics 9(1), 1981.
D. C. Hoaglin, R. E. Welsch, "The hat matrix in regression and ANOVA", The American Statistician 32(1), 1978 (leverage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from fairway.core.mapping import THREADS, Mapper

if TYPE_CHECKING:
    from fairway.evaluation.predictions import Classes, Floats

_FEWEST = 16
"""Resamples of a chunk, at least: what is read once for all of them is then cheap."""
_CHUNK_ELEMENTS = 2_000_000
"""Weights of a chunk, unless the fewest resamples need more: 16 MB, and a few times that while they are used."""
_MANY = 20_000
"""Units beyond which sums are drawn closely."""
_LEVERAGE = 1e-4
_BLOCK_ELEMENTS = 2**18
"""Weights held at once where only their sums are wanted: 2 MB, which stays in a cache."""


class Source(Protocol):
    """What gives the weights of some resamples, or sums of them."""

    @property
    def units(self) -> int:
        """How many weights one resample takes."""
        ...

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, columns)."""
        ...


@dataclass(frozen=True)
class RowWeights:
    """A weight for each row, shared within a group: ``groups`` is an int array of shape (rows,), or None."""

    rows: int
    groups: Classes | None = None

    @property
    def units(self) -> int:
        """Rows, since that is how many weights are held."""
        return self.rows

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, rows)."""
        if self.groups is None:
            return rng.standard_exponential((resamples, self.rows))
        weights: Floats = rng.standard_exponential((resamples, int(self.groups.max(initial=-1)) + 1))[:, self.groups]
        return weights


@dataclass(frozen=True)
class CellWeights:
    """The weights of cells, or of pseudo-rows, ``shapes`` rows in each: all rows of a cell count alike.

    ``scale`` is how many rows have one weight together: half a group of pseudo-rows varies as half a group does.
    """

    shapes: Floats
    scale: float = 1.0

    @property
    def units(self) -> int:
        """Cells."""
        return len(self.shapes)

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, cells)."""
        weights = rng.standard_gamma(self.shapes / self.scale, size=(resamples, len(self.shapes)))
        return weights if self.scale == 1 else self.scale * weights


@dataclass(frozen=True)
class Sums:
    """Sums over units (rows, or groups of rows) of their weight times what they state.

    Attributes
    ----------
    statistics : float array of shape (columns, units), or SciPy sparse array (CSR) of shape (units, columns)
    """

    statistics: Any

    @property
    def units(self) -> int:
        """Rows or groups."""
        return int(self.statistics.shape[1 if isinstance(self.statistics, np.ndarray) else 0])

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, columns). In blocks of units, so that memory does not grow with them."""
        dense = isinstance(self.statistics, np.ndarray)
        found = np.zeros((resamples, self.statistics.shape[0 if dense else 1]))
        step = max(1, _BLOCK_ELEMENTS // resamples)
        for start in range(0, self.units, step):
            stop = min(start + step, self.units)
            # No BLAS here: its order of adding depends on the number of its threads.
            if dense:
                weights = rng.standard_exponential((resamples, stop - start))
                found += np.einsum("du,ku->dk", weights, self.statistics[:, start:stop])
            else:
                weights = rng.standard_exponential((stop - start, resamples))
                found += (self.statistics[start:stop].T @ weights).T
        return found


@dataclass(frozen=True)
class ManySums:
    """The same, where most units are drawn together. Make one with :func:`summed`.

    Attributes
    ----------
    heavy : Sums
        Of the deviations from ``center``, and of the weights; units that are drawn one by one.
    light : float array of shape (columns + 1,)
        The mean of the same sums over all others.
    root : float array of shape (columns + 1, columns + 1)
        A square root of their covariance.
    center : float array of shape (columns,)
    """

    heavy: Sums
    light: Floats
    root: Floats
    center: Floats

    @property
    def units(self) -> int:
        """Numbers drawn for one resample."""
        return self.heavy.units + len(self.light)

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, columns)."""
        normal = rng.standard_normal((resamples, len(self.light)))
        sums = self.heavy.draw(rng, resamples) + self.light + np.einsum("dj,ij->di", normal, self.root)
        found: Floats = sums[:, :-1] + sums[:, -1:] * self.center
        return found


@dataclass(frozen=True)
class Joined:
    """The draws of several sources beside each other, independent of each other."""

    sources: tuple[Source, ...]

    @property
    def units(self) -> int:
        """Of all."""
        return sum(source.units for source in self.sources)

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, columns of all)."""
        return np.concatenate([source.draw(rng, resamples) for source in self.sources], axis=1)


def summed(statistics: Floats) -> Source:
    """Sums of ``statistics``, a float array of shape (columns, units): of few units exactly, of many closely."""
    if statistics.shape[1] <= _MANY:
        return Sums(np.ascontiguousarray(statistics))
    center = statistics.mean(axis=1)
    whole = np.vstack([statistics - center[:, None], np.ones((1, statistics.shape[1]))])
    apart = _leverage(whole) > _LEVERAGE
    heavy = np.ascontiguousarray(whole[:, apart])
    light = whole[:, ~apart]
    return ManySums(Sums(heavy), light.sum(axis=1), _root(_products(light)), center)


def _leverage(statistics: Floats) -> Floats:
    """The largest share that each unit may have in the sum of squares of any linear combination; shape (units,)."""
    root = _root(_products(statistics))
    left = np.zeros(statistics.shape[1])
    solved: list[Floats] = []
    for row, column in zip(root, statistics, strict=True):  # by substitution: root @ solved = statistics
        pivot = row[len(solved)]
        rest = column - sum((row[j] * one for j, one in enumerate(solved) if row[j]), np.zeros(1))
        solved.append(rest / pivot if pivot > 0 else np.zeros_like(column))
        left += solved[-1] ** 2
    return left


def _products(statistics: Floats) -> Floats:
    found: Floats = np.einsum("iu,ju->ij", statistics, statistics)
    return found


def _root(products: Floats) -> Floats:
    """The Cholesky factor of a covariance matrix that may be singular, computed alike on every machine."""
    rest, root = products.copy(), np.zeros_like(products)
    for j in range(len(rest)):
        if rest[j, j] > 1e-12 * products[j, j]:
            root[j:, j] = rest[j:, j] / np.sqrt(rest[j, j])
            rest -= np.outer(root[:, j], root[:, j])
    return root


class _Chunk(NamedTuple):
    number: int
    resamples: int


def drawn(
    source: Source,
    function: Callable[[Floats], Floats],
    resamples: int,
    seed: int,
    stream: int,
    mapper: Mapper = THREADS,
) -> Floats:
    """``function`` of every chunk's draws, joined: shape (resamples, ...).

    Parameters
    ----------
    source : Source
    function : callable of an array of shape (resamples of the chunk, columns)
    resamples, seed : int
    stream : int
        Draws of different streams are independent; those of the same seed, stream and source are the same.
    mapper : Mapper
    """
    call = partial(_draw, source, function, seed, stream)
    return np.concatenate(list(mapper.map(call, _chunks(resamples, source.units))))


def weighted_sums(
    statistics: Floats,
    resamples: int,
    seed: int,
    *,
    groups: Classes | None = None,
    stream: int = 0,
    mapper: Mapper = THREADS,
) -> Floats:
    """Sums of rows' statistics under random weights: what a metric that is a function of sums is drawn from.

    Parameters
    ----------
    statistics : float array of shape (rows, columns)
        What each row states. A column of ones gives the sum of the weights, which are Exponential, so 1 in the mean.
        Those of two models beside each other get the same weights.
    resamples, seed : int
    groups : int array of shape (rows,), optional
        Numbered from 0. Rows of one group have one weight.
    stream : int
        Draws of different streams are independent.
    mapper : Mapper
        What computes the chunks; the numbers are the same with any.

    Returns
    -------
    float array of shape (resamples, columns)

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> sums = weighted_sums(np.stack([x, np.ones(4)], axis=1), 1000, seed=0)
    >>> means = sums[:, 0] / sums[:, 1]
    >>> bool(abs(means.mean() - 2.5) < 0.1), bool(abs(means.std() - (1.25 / 5) ** 0.5) < 0.05)
    (True, True)
    """
    columns = np.asarray(statistics, np.float64).T
    if groups is not None:
        columns = np.stack([np.bincount(groups, weights=column) for column in columns])
    return drawn(summed(columns), _itself, resamples, seed, stream, mapper)


def cells_by_group(groups: Classes, cells: Classes, count: int) -> Any:
    """How many rows of each cell each group has: a sparse array of shape (groups, count)."""
    from scipy.sparse import csr_array

    ones = np.ones(len(groups))
    return csr_array((ones, (groups, cells)), shape=(int(groups.max(initial=-1)) + 1, count))


def _itself(sums: Floats) -> Floats:
    return sums


def _draw(source: Source, function: Callable[[Floats], Floats], seed: int, stream: int, chunk: _Chunk) -> Floats:
    bits = np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(stream, chunk.number)))
    return function(source.draw(np.random.Generator(bits), chunk.resamples))


def _chunks(resamples: int, units: int) -> Iterator[_Chunk]:
    step = max(_FEWEST, _CHUNK_ELEMENTS // max(units, 1))
    for number, start in enumerate(range(0, resamples, step)):
        yield _Chunk(number, min(step, resamples - start))
