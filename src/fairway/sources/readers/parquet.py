"""One Parquet file, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fairway.sources.readers.base import Reader, chunk_rows, cut
from fairway.sources.readers.places import Place

_BUFFERS = 2**24
_BUFFER = (2**16, 2**20)


class ParquetFile(Reader):
    """A row group may be larger than memory: columns are decoded as they are read, through buffers of 16 MiB in all."""

    def __init__(self, place: Place) -> None:
        self._place = place
        with self._open() as file:
            self.schema = file.schema_arrow
            self._groups = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
        self.rows = sum(self._groups)

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Row groups without any of these rows are skipped."""
        stop = self.rows if stop is None else stop
        wanted, first, before = list[int](), 0, 0
        for number, count in enumerate(self._groups):
            if before < stop and before + count > start:
                first = before if not wanted else first
                wanted.append(number)
            before += count
        with self._open(len(columns)) as file:
            size = chunk_rows(self.select(columns))
            for batch in file.iter_batches(size, row_groups=wanted, columns=list(columns)):
                part = cut(batch, start, stop, first).select(columns)
                first += batch.num_rows
                if part.num_rows:
                    yield part

    def _open(self, columns: int = 1) -> Any:
        import pyarrow.parquet

        size = min(max(_BUFFERS // max(columns, 1), _BUFFER[0]), _BUFFER[1])
        return pyarrow.parquet.ParquetFile(self._place.file(), buffer_size=size, pre_buffer=False)
