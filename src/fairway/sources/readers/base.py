"""What every kind of data offers: a schema, a number of rows, and reading them batch by batch, again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidData

CHUNK_BYTES = 16 * 2**20
"""About what one batch holds: enough that Python's share of the time is small, and little beside the libraries."""

CHUNK_ROWS = 65_536


def require_distinct(names: Sequence[str], of: str) -> None:
    """Raise :class:`InvalidData` if two columns have one name."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidData(f"{of} has more than one column {', '.join(map(repr, twice))}; give each its own name")


class Reader(ABC):
    """Rows that lie somewhere. Every reading gives the same rows in the same order.

    Attributes
    ----------
    schema : pyarrow.Schema
    rows : int
    """

    schema: Any
    rows: int

    @abstractmethod
    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Rows ``start`` to ``stop`` of these columns as ``pyarrow.RecordBatch`` of whatever sizes, each of bounded bytes."""

    def take(self, columns: Sequence[str], indices: NDArray[np.int64]) -> Any:
        """Rows by ascending, distinct numbers, as a ``pyarrow.Table``. Reads from the first to the last of them."""
        import pyarrow as pa

        if not len(indices):
            return self.select(columns).empty_table()
        start, parts = int(indices[0]), []
        for batch in self.read(columns, start, int(indices[-1]) + 1):
            low, high = np.searchsorted(indices, (start, start + batch.num_rows))
            if low < high:
                parts.append(batch.take(pa.array(indices[low:high] - start)))
            start += batch.num_rows
        return pa.Table.from_batches(parts, self.select(columns))

    def select(self, columns: Sequence[str]) -> Any:
        """The schema of some columns."""
        import pyarrow as pa

        return pa.schema([self.schema.field(name) for name in columns], self.schema.metadata)


class InMemory(Reader):
    """A ``pyarrow.Table``."""

    def __init__(self, arrow: Any) -> None:
        self.arrow, self.schema, self.rows = arrow, arrow.schema, arrow.num_rows

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Views; nothing is copied."""
        part = self.arrow.select(columns).slice(start, (self.rows if stop is None else stop) - start)
        yield from part.to_batches(max_chunksize=chunk_rows(self.select(columns)))

    def take(self, columns: Sequence[str], indices: NDArray[np.int64]) -> Any:
        """Rows by number, in any order."""
        return self.arrow.select(columns).take(indices)


def chunk_rows(schema: Any) -> int:
    """Rows of about ``CHUNK_BYTES``, as far as the types say."""
    width = sum(_width(field.type) for field in schema)
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(width, 1)))


def _width(kind: Any) -> int:
    from pyarrow import types

    if types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if types.is_struct(kind):  # an encoded image, most likely
        return 2**16
    if types.is_list(kind) or types.is_large_list(kind):
        return 2**10
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 64


def cut(batch: Any, start: int, stop: int | None, before: int) -> Any:
    """The part of a batch, ``before`` rows in, that lies in rows ``start`` to ``stop``; it may be empty."""
    low = max(start - before, 0)
    high = batch.num_rows if stop is None else min(stop - before, batch.num_rows)
    return batch.slice(low, max(high - low, 0))


def compacted(batch: Any) -> Any:
    """The same rows in memory of their own: Arrow reads a column into a buffer of all columns' size, which it keeps."""
    import pyarrow as pa

    return batch.take(pa.array(np.arange(batch.num_rows)))


def rebatched(batches: Iterator[Any], schema: Any, size: int) -> Iterator[Any]:
    """The same rows as ``pyarrow.Table`` of ``size`` rows each, the last of what is left."""
    import pyarrow as pa

    waiting, count = list[Any](), 0
    for given in batches:
        batch = given
        while count + batch.num_rows >= size:
            waiting.append(batch.slice(0, size - count))
            yield pa.Table.from_batches(waiting, schema)
            batch, waiting, count = batch.slice(size - count), [], 0
        if batch.num_rows:
            waiting.append(batch)
            count += batch.num_rows
    if count:
        yield pa.Table.from_batches(waiting, schema)
