"""Draws of a bootstrap in chunks: the same numbers whatever computes the chunks, and however many at once.

Rows get random weights with a Dirichlet distribution (Rubin's Bayesian bootstrap) instead of random counts: the same spread,
but no resample ever loses a class. Weights are drawn unscaled, Exponential of one row, Gamma of several that count alike. A
chunk is some of the resamples, with a generator of its own, seeded by the chunk's number.

References
----------
D. B. Rubin, "The Bayesian bootstrap", Annals of Statistics 9(1), 1981.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
    """A weight for each row, shared within a group, then one of each pseudo-row.

    Attributes
    ----------
    rows : int
    shapes : float array
        What each pseudo-row is worth, in rows.
    groups : int array of shape (rows,), or None
    """

    rows: int
    shapes: Floats
    groups: Classes | None = None

    @property
    def units(self) -> int:
        """Rows and pseudo-rows."""
        return self.rows + len(self.shapes)

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, rows and pseudo-rows)."""
        independent = self.rows if self.groups is None else int(self.groups.max(initial=-1)) + 1
        real = rng.standard_exponential((resamples, independent))
        extra = _pseudo_weights(rng, self.shapes, self.rows / independent, resamples)
        return np.concatenate([real if self.groups is None else real[:, self.groups], extra], axis=1)


@dataclass(frozen=True)
class CellWeights:
    """The weights of cells, ``shapes`` rows in each: all rows of a cell count alike."""

    shapes: Floats

    @property
    def units(self) -> int:
        """Cells."""
        return len(self.shapes)

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, cells)."""
        return rng.standard_gamma(self.shapes, size=(resamples, len(self.shapes)))


@dataclass(frozen=True)
class Sums:
    """Sums over units (rows, or groups of rows) of their weight times what they state.

    Attributes
    ----------
    statistics : float array of shape (columns, units), or SciPy sparse array (CSR) of shape (units, columns)
    pseudo : SciPy sparse array (CSR) of shape (pseudo-rows, columns), or None
        What pseudo-rows state; with ``None`` there are none.
    shapes : float array of shape (pseudo-rows,)
        What each is worth, in rows.
    scale : float, default 1
        Rows of an average unit: half a group of pseudo-rows varies as half a group does.
    """

    statistics: Any
    pseudo: Any = None
    shapes: Floats = field(default_factory=lambda: np.empty(0))
    scale: float = 1.0

    @property
    def units(self) -> int:
        """Rows or groups, and pseudo-rows."""
        return self._counted + len(self.shapes)

    @property
    def _dense(self) -> bool:
        return isinstance(self.statistics, np.ndarray)

    @property
    def _counted(self) -> int:
        return int(self.statistics.shape[1 if self._dense else 0])

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, columns). In blocks of units, so that memory does not grow with them."""
        found: Floats = np.zeros((resamples, self.statistics.shape[0 if self._dense else 1]))
        if self.pseudo is not None:
            found += (self.pseudo.T @ _pseudo_weights(rng, self.shapes, self.scale, resamples).T).T
        step = max(1, _BLOCK_ELEMENTS // resamples)
        for start in range(0, self._counted, step):
            stop = min(start + step, self._counted)
            # No BLAS here: its order of adding depends on the number of its threads.
            if self._dense:
                weights = rng.standard_exponential((resamples, stop - start))
                found += np.einsum("du,ku->dk", weights, self.statistics[:, start:stop])
            else:
                weights = rng.standard_exponential((stop - start, resamples))
                found += (self.statistics[start:stop].T @ weights).T
        return found


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
    statistics: Any,
    resamples: int,
    seed: int,
    *,
    groups: Classes | None = None,
    stream: int = 0,
    mapper: Mapper = THREADS,
) -> Floats:
    """Sums of rows' statistics under random weights; a metric that is a function of sums is one of these.

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
    columns = np.ascontiguousarray(np.asarray(statistics, np.float64).T)
    if groups is not None:
        columns = np.stack([np.bincount(groups, weights=column) for column in columns])
    return drawn(Sums(columns), _itself, resamples, seed, stream, mapper)


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


def _pseudo_weights(rng: np.random.Generator, shapes: Floats, scale: float, resamples: int) -> Floats:
    weights: Floats = scale * rng.standard_gamma(shapes / scale, size=(resamples, len(shapes)))
    return weights
