"""Rows that can be read only once, or only slowly, kept for reading them again: in memory if few, else in a temporary file."""

from __future__ import annotations

import errno
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidData
from fairway.sources.readers.base import CHUNK_BYTES, InMemory, Reader, cut

KEPT_BYTES = 64 * 2**20
"""Up to this size rows stay in memory."""


class Spool(Reader):
    """Rows in an Arrow file that has no name, so that nothing is left of it when this process ends, however it ends."""

    def __init__(self, file: Any, schema: Any, counts: Sequence[int]) -> None:
        import pyarrow as pa

        weakref.finalize(self, file.close)
        self._source = pa.PythonFile(file, mode="r")  # one for all: it locks, since there is one position in the file
        self.schema = schema
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.rows = int(self._starts[-1])

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Only these columns' bytes are read."""
        stop = self.rows if stop is None else stop
        with self._open(columns) as opened:
            first = int(np.searchsorted(self._starts, start, side="right")) - 1
            for number in range(first, opened.num_record_batches):
                before = int(self._starts[number])
                if before >= stop:
                    return
                batch = cut(opened.get_batch(number).select(columns), start, stop, before)
                if batch.num_rows:
                    yield batch

    def take(self, columns: Sequence[str], indices: NDArray[np.int64]) -> Any:
        """Only the batches that hold these rows are read."""
        import pyarrow as pa

        parts = []
        with self._open(columns) as opened:
            for number in range(opened.num_record_batches):
                low, high = np.searchsorted(indices, self._starts[number : number + 2])
                if low < high:
                    batch = opened.get_batch(number).select(columns)
                    parts.append(batch.take(pa.array(indices[low:high] - self._starts[number])))
        return pa.Table.from_batches(parts, self.select(columns))

    def _open(self, columns: Sequence[str]) -> Any:
        import pyarrow as pa

        fields = sorted(self.schema.get_field_index(name) for name in columns)
        return pa.ipc.open_file(self._source, options=pa.ipc.IpcReadOptions(included_fields=fields))


def spooled(batches: Iterable[Any], schema: Any) -> Reader:
    """Keep these ``pyarrow.RecordBatch`` of one schema.

    Raises
    ------
    InvalidData
        If there is no room for the temporary file.
    """
    import pyarrow as pa

    plain = _plain(schema)
    kept: list[Any] = []
    size, writer = 0, None
    try:
        for given in _sized(batches):
            batch = given.cast(plain) if plain != given.schema else given
            size += batch.nbytes
            kept.append(batch)
            if size > KEPT_BYTES:
                writer = writer or _Writer(plain)
                writer.write(kept)
                kept = []
        if writer is None:
            return InMemory(pa.Table.from_batches(kept, plain))
        writer.write(kept)
        return writer.finish()
    except BaseException as error:
        if writer is not None:
            writer.abandon()
        if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InvalidData(
            f"no room for the rows in {tempfile.gettempdir()} ({error.strerror} after {size / 1e6:,.0f} MB): free some, or set "
            "TMPDIR to a folder on a larger disk"
        ) from None


class _Writer:
    def __init__(self, schema: Any) -> None:
        import pyarrow as pa

        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as the reader)
        self._schema, self._counts = schema, list[int]()
        self._stream = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), schema)

    def write(self, batches: Iterable[Any]) -> None:
        for batch in batches:
            self._stream.write_batch(batch)
            self._counts.append(batch.num_rows)

    def abandon(self) -> None:
        self._file.close()

    def finish(self) -> Spool:
        self._stream.close()
        return Spool(self._file, self._schema, self._counts)


def _plain(schema: Any) -> Any:
    """Dictionaries written out: an Arrow file takes but one of each."""
    import pyarrow as pa
    from pyarrow import types

    for index, field in enumerate(schema):
        if types.is_dictionary(field.type):
            schema = schema.set(index, pa.field(field.name, field.type.value_type, metadata=field.metadata))
    return schema


def _sized(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches of bounded bytes, and none without rows."""
    for batch in batches:
        step = max(1, batch.num_rows * CHUNK_BYTES // max(batch.nbytes, 1))
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)
