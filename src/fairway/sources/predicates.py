"""SQL predicates over a table's columns, such as the ``where`` of a slice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidConfig
from fairway.core.extras import require

_SEALED = {
    "threads": 1,
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
}


def evaluate_predicate(arrow: Any, where: str, *, limit_s: float = 60.0) -> NDArray[np.bool_]:
    """Which rows of a ``pyarrow.Table`` satisfy ``where``, in order. NULL is false, and so is what a missing value leads to.

    ``where`` is parsed as one expression, never as a statement, in a database that can reach no file, no network and no
    Python variable, for at most ``limit_s`` seconds.

    Raises
    ------
    InvalidConfig
        If it is not an expression, names unknown columns, does not give one truth value per row, or takes too long.
    """
    duckdb = require("duckdb", extra="evaluate")
    with duckdb.connect(":memory:", config=_SEALED) as database:
        database.execute("SET lock_configuration = true")
        try:
            truth = duckdb.SQLExpression(where).cast("BOOLEAN")
            with _at_most(limit_s, database.interrupt):
                answer = database.from_arrow(_missing_is_null(arrow)).select(truth).to_arrow_table()
        except duckdb.InterruptException:
            raise InvalidConfig(
                _complaint(where, f"it takes more than {limit_s:g} s; make it simpler", arrow.column_names)
            ) from None
        except duckdb.Error as error:
            raise InvalidConfig(_complaint(where, str(error), arrow.column_names)) from None
    if answer.num_rows != arrow.num_rows or answer.num_columns != 1:
        reason = "it does not give one value per row; compare columns row by row, without aggregates or UNNEST"
        raise InvalidConfig(_complaint(where, reason, arrow.column_names))
    mask: NDArray[np.bool_] = answer.column(0).fill_null(False).to_numpy().astype(np.bool_)
    return mask


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


def _missing_is_null(arrow: Any) -> Any:
    """To SQL, NaN is the largest number; to us it is a missing value, however the file wrote it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, field in enumerate(arrow.schema):
        if pa.types.is_floating(field.type):
            column = arrow.column(index)
            known = pc.if_else(pc.is_nan(column), pa.scalar(None, field.type), column)
            arrow = arrow.set_column(index, field.name, known)
    return arrow


def _complaint(where: str, reason: str, columns: list[str]) -> str:
    shown = ", ".join(columns[:_SHOWN]) + (" …" if len(columns) > _SHOWN else "")
    return f"cannot apply the condition {where!r}: {' '.join(reason.split())}; the columns are: {shown}"


_SHOWN = 100
