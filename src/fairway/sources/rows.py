"""The rows that a conversion is checked on: real ones, or made up from the specs if there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fairway.core.tensors import Datatype, Tensor, Tensors, TensorSpec
from fairway.sources.tables import Table

CHECKED_ROWS = 256
BATCH_ROWS = 64
_FREE_SIZE = 8
_TEXTS = (
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "42 is fine",
    "",
    "One more, somewhat longer, line of text!",
)


@dataclass(frozen=True)
class Rows:
    """Rows as model inputs.

    Attributes
    ----------
    feed : mapping of name to array
    table : Table or None
        The same rows as they lie in the data; ``None`` if they were generated.
    numbers : array of int
        Their row numbers in the data.
    """

    feed: Tensors
    table: Table | None
    numbers: Tensor

    @property
    def count(self) -> int:
        """How many."""
        return len(self.numbers)

    @property
    def real(self) -> bool:
        """Whether they come from data."""
        return self.table is not None

    def part(self, chosen: slice) -> Rows:
        """Some of the rows."""
        feed = {name: array[chosen] for name, array in self.feed.items()}
        return Rows(feed, None if self.table is None else self.table.select(chosen), self.numbers[chosen])

    def batches(self, size: int, *, exact: bool = False) -> Iterator[Rows]:
        """All rows in batches of ``size``; the last may be smaller or, if ``exact``, is then left out."""
        for start in range(0, self.count, size):
            if not exact or start + size <= self.count:
                yield self.part(slice(start, start + size))


def rows_for(
    specs: Sequence[TensorSpec], reference: Table | None, label: str | None, count: int = CHECKED_ROWS
) -> Rows:
    """Up to ``count`` rows, evenly spaced over ``reference``, or generated. The same arguments give the same rows.

    Raises
    ------
    InvalidData
        If the reference does not fit the specs.
    """
    if reference is None:
        return generated_rows(specs, count)
    numbers = np.unique(np.linspace(0, reference.rows - 1, min(count, reference.rows)).astype(np.int64))
    table = reference.select(numbers)
    return Rows(table.feed(specs, label=label), table, numbers)


def generated_rows(specs: Sequence[TensorSpec], count: int) -> Rows:
    """Rows that fit the specs, from a fixed seed."""
    rng = np.random.default_rng(0)
    feed = {spec.name: _generate(spec, count, rng) for spec in specs}
    return Rows(feed, None, np.arange(count))


def _generate(spec: TensorSpec, count: int, rng: np.random.Generator) -> Tensor:
    shape = (count, *(size if size != -1 else _FREE_SIZE for size in spec.shape[1:]))
    if spec.datatype is Datatype.BYTES:
        texts = np.empty(math.prod(shape), dtype=object)
        texts[:] = [_TEXTS[i % len(_TEXTS)].encode() for i in range(len(texts))]
        return texts.reshape(shape)
    if spec.datatype.is_float:
        return rng.standard_normal(shape).astype(spec.datatype.dtype)
    return rng.integers(0, 2, shape).astype(spec.datatype.dtype)
