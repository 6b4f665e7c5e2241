"""Several files as one: the files of a folder or of a pattern, with what their folders say (``year=2024``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidData
from fairway.sources.mapping import nearest
from fairway.sources.readers.base import Reader

_NULL = "__HIVE_DEFAULT_PARTITION__"


class Joined(Reader):
    """The rows of several readers, one after another.

    All have the same columns, in any order. Types may differ as far as one holds the values of the other: whole numbers in one
    file and fractions in the next are floats throughout.

    Parameters
    ----------
    parts : mapping of name to Reader
        In order.
    added : mapping of column name to one value (or ``None``) per part
        Columns that are constant within a part.
    """

    def __init__(self, parts: Mapping[str, Reader], added: Mapping[str, Sequence[str | None]] | None = None) -> None:
        import pyarrow as pa

        self._parts = list(parts.values())
        self._added = {name: _typed(values) for name, values in (added or {}).items()}
        _check_names(parts, self._added)
        try:
            schema = pa.unify_schemas(
                [part.schema.remove_metadata() for part in self._parts], promote_options="permissive"
            )
        except pa.ArrowException as error:
            raise InvalidData(
                f"{', '.join(parts)}: a column has types that do not go together: {str(error).splitlines()[0]}"
            ) from None
        for name, values in self._added.items():
            schema = schema.append(pa.field(name, values.type))
        self.schema = schema.with_metadata(self._parts[0].schema.metadata)
        self._starts = np.concatenate([[0], np.cumsum([part.rows for part in self._parts])]).astype(np.int64)
        self.rows = int(self._starts[-1])

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Parts without any of these rows are not opened."""
        import pyarrow as pa

        stop = self.rows if stop is None else stop
        schema = self.select(columns)
        for number, part in enumerate(self._parts):
            before, after = self._starts[number : number + 2].tolist()
            if before >= stop or after <= start:
                continue
            own = [name for name in columns if name not in self._added]
            # a part's rows are counted by one of its columns even if none of them is asked for
            read = own or part.schema.names[:1]
            for batch in part.read(read, max(start - before, 0), min(stop, after) - before):
                arrays = [
                    batch.column(name).cast(schema.field(name).type)
                    if name in own
                    else pa.repeat(self._added[name][number], batch.num_rows)
                    for name in columns
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def take(self, columns: Sequence[str], indices: NDArray[np.int64]) -> Any:
        """Only the parts that hold these rows are opened."""
        import pyarrow as pa

        schema = self.select(columns)
        tables = [schema.empty_table()]
        for number, part in enumerate(self._parts):
            low, high = np.searchsorted(indices, self._starts[number : number + 2])
            if low < high:
                own = [name for name in columns if name not in self._added]
                found = part.take(own or part.schema.names[:1], indices[low:high] - self._starts[number])
                for name in self._added:
                    found = found.append_column(name, pa.repeat(self._added[name][number], found.num_rows))
                tables.append(found.select(columns).cast(schema))
        return pa.concat_tables(tables)


def partitions(paths: Sequence[str]) -> dict[str, list[str | None]]:
    """What the folders of each path say, as in ``year=2024/month=5/part.parquet``, by column.

    Examples
    --------
    >>> partitions(["year=2024/a.parquet", "year=2025/a.parquet"])
    {'year': ['2024', '2025']}
    """
    said = [
        {key: unquote(value) for key, equals, value in (part.partition("=") for part in path.split("/")[:-1]) if equals}
        for path in paths
    ]
    keys = dict.fromkeys(key for each in said for key in each)
    for path, each in zip(paths, said, strict=True):
        if absent := next((key for key in keys if key not in each), None):
            raise InvalidData(
                f"{path} lies in no folder {absent}=…, as others do; move it, or name the files by a pattern"
            )
    return {key: [None if each[key] == _NULL else each[key] for each in said] for key in keys}


def _typed(values: Sequence[str | None]) -> Any:
    """Whole numbers if all of them are, else text."""
    import pyarrow as pa

    whole = all(value is None or value.lstrip("-").isdigit() for value in values)
    return pa.array([None if value is None else int(value) for value in values] if whole else values)


def _check_names(parts: Mapping[str, Reader], added: Mapping[str, Any]) -> None:
    first, *_ = parts
    names = parts[first].schema.names
    problems = []
    for name, part in parts.items():
        absent = [each for each in names if each not in part.schema.names]
        more = [each for each in part.schema.names if each not in names]
        if absent:
            problems.append(
                f"{name} has no column {', '.join(f'{a!r}{nearest(a, more)}' for a in absent)}, which {first} has"
            )
        elif more:
            problems.append(f"{name} has {', '.join(map(repr, more))}, which {first} lacks")
        if both := [each for each in added if each in part.schema.names]:
            problems.append(f"{name} has a column {both[0]!r}, and so have the names of its folders")
    if problems:
        raise InvalidData("the files do not go together:\n" + "\n".join(f"- {each}" for each in problems[:20]))
