"""SQL predicates over a table's columns, such as the ``where`` of a slice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require
from fairway.sources.readers.base import Reader

_SEALED = {
    "threads": 1,
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
}


def evaluate_predicate(rows: Reader, where: str, *, limit_s: float = 60.0) -> NDArray[np.bool_]:
    """Which rows satisfy ``where``, in order. NULL is false, and so is what a missing value leads to.

    ``where`` is parsed as one expression, never as a statement, in a database that can reach no file, no network and no
    Python variable, for at most ``limit_s`` seconds (per five million rows). Rows are read batch by batch, and of their
    columns only those that ``where`` may name.

    Raises
    ------
    InvalidConfig
        If it is not an expression, names unknown columns, does not give one truth value per row, or takes too long.
    """
    names, columns = rows.schema.names, named_columns(where, rows.schema.names)
    limit_s *= max(1.0, rows.rows / _ROWS_PER_LIMIT)
    duckdb = require("duckdb", extra="evaluate")
    with duckdb.connect(":memory:", config=_SEALED) as database:
        database.execute("SET lock_configuration = true")
        try:
            truth = duckdb.SQLExpression(where).cast("BOOLEAN")
            database.from_arrow(rows.schema.empty_table()).select(truth)  # names are looked up among all columns
            with _at_most(limit_s, database.interrupt):
                answer = database.from_arrow(_batches(rows, columns)).select(truth).to_arrow_table()
        except duckdb.InterruptException:
            raise InvalidConfig(
                _complaint(where, f"it takes more than {limit_s:g} s; make it simpler", names)
            ) from None
        except duckdb.Error as error:
            raise InvalidConfig(_complaint(where, str(error), names)) from None
    if answer.num_rows != rows.rows or answer.num_columns != 1:
        reason = "it does not give one value per row; compare columns row by row, without aggregates or UNNEST"
        raise InvalidConfig(_complaint(where, reason, names))
    mask: NDArray[np.bool_] = answer.column(0).fill_null(False).to_numpy().astype(np.bool_)
    return mask


def named_columns(where: str, names: Sequence[str]) -> list[str]:
    """The columns that a condition may name: those whose name occurs in it. One column, if none does.

    Examples
    --------
    >>> named_columns('ink < 0.25 AND "pen size" > 1', ["ink", "paper", "pen size"])
    ['ink', 'pen size']
    """
    said = where.lower()
    if "columns" in said:  # COLUMNS('a.*') chooses by a pattern
        return list(names)
    return [name for name in names if name.lower().replace('"', '""') in said] or list(names[:1])


def _batches(rows: Reader, columns: list[str]) -> Any:
    """To SQL, NaN is the largest number; to us it is a missing value, however the file wrote it."""
    import pyarrow as pa

    return pa.RecordBatchReader.from_batches(rows.select(columns), map(_missing_is_null, rows.read(columns)))


@contextmanager
def _at_most(seconds: float, interrupt: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it must not reach a database that is closed


def _missing_is_null(batch: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = [
        pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array) if pa.types.is_floating(array.type) else array
        for array in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _complaint(where: str, reason: str, columns: list[str]) -> str:
    shown = ", ".join(columns[:_SHOWN]) + (" …" if len(columns) > _SHOWN else "")
    return f"cannot apply the condition {where!r}: {' '.join(reason.split())}; the columns are: {shown}"


_SHOWN = 100
_ROWS_PER_LIMIT = 5_000_000
