"""Tabular data: read from a file, select rows, feed a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairway.bundle.format import file_digest
from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.extras import require
from fairway.core.tensors import Datatype, Tensor, TensorSpec
from fairway.sources.columns import from_numpy, to_numpy
from fairway.sources.mapping import map_columns, nearest
from fairway.sources.predicates import evaluate_predicate
from fairway.sources.readers import read_arrow


class Table:
    """Rows of named columns. Immutable. Make one with :func:`load_table` or :func:`make_table`.

    Attributes
    ----------
    arrow : pyarrow.Table
    digest : str
        ``sha256:…`` of the file, or of the content if there is no file; a selection's is that of the rows chosen from it.
    origin : str
        Where the rows come from, for messages.
    """

    def __init__(self, arrow: Any, *, digest: str, origin: str = "table") -> None:
        self.arrow = arrow
        self.digest = digest
        self.origin = origin

    def __repr__(self) -> str:
        return f"<Table {self.origin}: {self.rows} rows, {len(self.columns)} columns>"

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.arrow.num_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self.arrow.column_names)

    def column(self, name: str) -> Tensor:
        """One column as an array of shape ``[rows, ...]``.

        Missing numbers are NaN, text is ``str`` objects with ``None`` where missing, lists are further axes.

        Raises
        ------
        InvalidData
            If there is no such column, or its lists have different lengths.
        """
        if name not in self.arrow.column_names:
            raise InvalidData(
                f"{self.origin} has no column {name!r}{nearest(name, self.columns)}; it has: {', '.join(self.columns)}"
            )
        return to_numpy(self.arrow.column(name), name)

    def datatype(self, name: str) -> Datatype | None:
        """The datatype of a column's elements, or ``None`` if no tensor can hold them (dates, say)."""
        array = self.column(name)
        try:
            return Datatype.of(array.dtype)
        except ValueError:
            return None

    def features(self, patterns: Sequence[str] = (), *, label: str | None = None) -> tuple[str, ...]:
        """The columns that match any of the glob ``patterns`` (all, if there are none), but the label.

        Raises
        ------
        InvalidConfig
            If a pattern matches no column.
        """
        candidates = [name for name in self.columns if name != label]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise InvalidConfig(
                    f"data.features: {pattern!r} matches no column of {self.origin}{nearest(pattern, candidates)}; "
                    f"they are: {', '.join(candidates)}"
                )
        return tuple(n for n in candidates if not patterns or any(fnmatchcase(n, pattern) for pattern in patterns))

    def feed(
        self,
        specs: Sequence[TensorSpec],
        rows: slice | NDArray[Any] | None = None,
        *,
        label: str | None = None,
    ) -> dict[str, Tensor]:
        """These rows as a model's inputs.

        An input is filled by the columns that its spec names; else by the column of its own name; else, being the only
        input, by all numeric columns but ``label``, if they are as many as it takes.

        Parameters
        ----------
        specs : sequence of TensorSpec
        rows : slice, mask, indices or None
            ``None`` is all rows.
        label : str or None
            A column that is no feature.

        Raises
        ------
        InvalidData
            Listing all that does not fit: absent columns, text for numbers, missing values where the model takes none.
        """
        if rows is not None:
            return self._taken(rows).feed(specs, label=label)
        try:
            return map_columns(specs, self.columns, self._scalars(label), self.column)
        except InvalidData as error:
            raise InvalidData(f"{self.origin}: {error}") from None

    def mask(self, where: str) -> NDArray[np.bool_]:
        """Which rows satisfy a SQL predicate over the columns; NULL is false. Raises :class:`InvalidConfig` if it is wrong.

        Examples
        --------
        >>> make_table({"ink": [0.1, 0.5, float("nan")]}).mask("ink < 0.25").tolist()
        [True, False, False]
        """
        return evaluate_predicate(self.arrow, where)

    def select(self, rows: slice | NDArray[Any] | Sequence[int]) -> Table:
        """The rows of a boolean mask, of indices (in their order) or of a slice."""
        return self._taken(rows)

    def _taken(self, rows: slice | NDArray[Any] | Sequence[int]) -> Table:
        indices = np.arange(self.rows)[rows if isinstance(rows, slice) else np.asarray(rows)]
        chosen = hashlib.sha256(self.digest.encode() + indices.astype("<i8").tobytes()).hexdigest()
        return Table(self.arrow.take(indices), digest=f"sha256:{chosen}", origin=self.origin)

    def _scalars(self, label: str | None) -> list[str]:
        from pyarrow import types

        tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
        return [f.name for f in self.arrow.schema if f.name != label and any(test(f.type) for test in tests)]


def load_table(path: Path | str, *, origin: str = "") -> Table:
    """Read a data file: csv, tsv, parquet, arrow, feather or npz.

    Parameters
    ----------
    path : Path or str
    origin : str, optional
        What errors and reports call it; the path by default.

    Raises
    ------
    InvalidData
        If it is missing, empty, broken or of an unknown form.
    MissingExtra
        If pyarrow is not installed.
    """
    file = Path(path)
    return Table(read_arrow(file), digest=f"sha256:{file_digest(file)}", origin=origin or str(path))


def make_table(columns: Mapping[str, ArrayLike], *, origin: str = "table") -> Table:
    """A table of arrays, each of shape ``[rows, ...]``.

    Raises
    ------
    InvalidData
        If there are none, or they differ in their number of rows.

    Examples
    --------
    >>> make_table({"x": [[1.0, 2.0], [3.0, 4.0]], "y": ["a", "b"]}).column("x").shape
    (2, 2)
    """
    pa = require("pyarrow", extra="evaluate")
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    if len({array.shape[:1] for array in arrays.values()}) != 1:
        raise InvalidData(
            f"{origin}: columns of one length are needed, not { ({n: a.shape for n, a in arrays.items()}) }"
        )
    arrow = pa.table({name: from_numpy(array) for name, array in arrays.items()})
    return Table(arrow, digest=_content_digest(arrays), origin=origin)


def _content_digest(arrays: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        content = repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()
        for part in (name.encode(), str(array.dtype).encode(), str(array.shape).encode(), content):
            digest.update(len(part).to_bytes(8, "little") + part)
    return f"sha256:{digest.hexdigest()}"
