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
    statistics : SciPy sparse array (CSR) of shape (units, columns)
    """

    statistics: Any

    @property
    def units(self) -> int:
        """Rows or groups."""
        return int(self.statistics.shape[0])

    def draw(self, rng: np.random.Generator, resamples: int) -> Floats:
        """Shape (resamples, columns). In blocks of units, so that memory does not grow with them."""
        found = np.zeros((resamples, self.statistics.shape[1]))
        step = max(1, _BLOCK_ELEMENTS // resamples)
        for start in range(0, self.units, step):
            stop = min(start + step, self.units)
            weights = rng.standard_exponential((stop - start, resamples))
            # No BLAS here (sparse products use none): its order of adding depends on the number of its threads.
            found += (self.statistics[start:stop].T @ weights).T
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


def cells_by_group(groups: Classes, cells: Classes, count: int) -> Any:
    """How many rows of each cell each group has: a sparse array of shape (groups, count)."""
    from scipy.sparse import csr_array

    ones = np.ones(len(groups))
    return csr_array((ones, (groups, cells)), shape=(int(groups.max(initial=-1)) + 1, count))


def _draw(source: Source, function: Callable[[Floats], Floats], seed: int, stream: int, chunk: _Chunk) -> Floats:
    bits = np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(stream, chunk.number)))
    return function(source.draw(np.random.Generator(bits), chunk.resamples))


def _chunks(resamples: int, units: int) -> Iterator[_Chunk]:
    step = max(_FEWEST, _CHUNK_ELEMENTS // max(units, 1))
    for number, start in enumerate(range(0, resamples, step)):
        yield _Chunk(number, min(step, resamples - start))
