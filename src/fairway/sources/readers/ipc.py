"""Arrow files: the file format (which Feather 2 is) and the stream format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fairway.sources.readers.base import Reader, chunk_rows, cut
from fairway.sources.readers.places import Place

_MAGIC = b"ARROW1"


_LARGE_BYTES = 64 * 2**20


class ArrowFile(Reader):
    """One Arrow file. Reading some columns touches these columns' bytes alone.

    Where its batches are large, it is mapped into memory, so that parts of a batch can be read.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._mapped = place, True
        with place.open() as file:
            self._stream = file.read(len(_MAGIC)) != _MAGIC
        self.schema, self.rows, batches = self._look()
        self._mapped = place.size() > _LARGE_BYTES * batches

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Batches as they were written, the large ones in parts."""
        before, step = 0, chunk_rows(self.select(columns))
        for batch in self._batches([self.schema.get_field_index(name) for name in columns]):
            part = cut(batch, start, stop, before).select(columns)
            before += batch.num_rows
            for first in range(0, part.num_rows, step):
                yield part.slice(first, step)
            if stop is not None and before >= stop:
                return

    def _look(self) -> tuple[Any, int, int]:
        import pyarrow as pa

        with self._place.open() as file:
            opened = pa.ipc.open_stream(file) if self._stream else pa.ipc.open_file(file)
            schema = opened.schema
        rows = [batch.num_rows for batch in self._batches([0] if len(schema) else [])]
        return schema, sum(rows), len(rows)

    def _batches(self, fields: Sequence[int]) -> Iterator[Any]:
        import pyarrow as pa

        options = pa.ipc.IpcReadOptions(included_fields=sorted(fields))
        with self._place.open() if self._mapped else self._place.file() as file:
            if self._stream:
                yield from pa.ipc.open_stream(file, options=options)
                return
            opened = pa.ipc.open_file(file, options=options)
            for number in range(opened.num_record_batches):
                yield opened.get_batch(number)
