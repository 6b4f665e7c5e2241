"""Tabular data: rows of named columns, read as they are needed; select some, feed a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairway.core.errors import InvalidConfig, InvalidData
from fairway.core.extras import require
from fairway.core.tensors import Datatype, Tensor, TensorSpec
from fairway.sources.columns import from_numpy, is_image, is_words, to_numpy
from fairway.sources.feeding import Feeding, feed_rows, planned, tell_broken
from fairway.sources.mapping import Plan, Problems, nearest, plan_columns
from fairway.sources.predicates import evaluate_predicate
from fairway.sources.readers.base import InMemory, Reader, compacted, rebatched
from fairway.sources.readers.open import open_data, readable
from fairway.sources.readers.places import without_secrets
from fairway.sources.readers.saved import CLASSES
from fairway.sources.settings import DataSettings, ImageSettings

_MASKS = 64  # remembered: a slice is asked for when it is checked, and again when it is measured


class Table:
    """Rows of named columns. Immutable. Make one with :func:`load_table` or :func:`make_table`.

    Rows are read when they are asked for, and of a large file never all at once: :meth:`column` reads one column,
    :meth:`batches` and :meth:`feeds` go through the rows in bounded memory, :meth:`sample` holds some of them.

    Parameters
    ----------
    rows : pyarrow.Table or Reader
    digest : str or callable
        ``sha256:…``, or what computes it when it is first asked for.
    origin : str
        Where the rows come from, for messages.
    image : ImageSettings
        How images become a model's input.
    """

    def __init__(
        self,
        rows: Any,
        *,
        digest: str | Callable[[], str],
        origin: str = "table",
        image: ImageSettings = ImageSettings(),  # noqa: B008 (immutable)
    ) -> None:
        self._reader: Reader = rows if isinstance(rows, Reader) else InMemory(rows)
        self._digest = digest
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self.origin = origin
        self._image = image
        self._feeding = Feeding(image)

    def __repr__(self) -> str:
        return f"<Table {self.origin}: {self.rows} rows, {len(self.columns)} columns>"

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of the file, or of the content if there is no file; a selection's is that of the rows chosen from it."""
        return self._digest if isinstance(self._digest, str) else self._digest()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._reader.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, in order."""
        return tuple(self._reader.schema.names)

    @property
    def schema(self) -> Any:
        """Column names and types, as a ``pyarrow.Schema``."""
        return self._reader.schema

    @property
    def arrow(self) -> Any:
        """All rows as a ``pyarrow.Table``: for few, such as those of a batch or a sample."""
        return self._arrow(self.columns)

    def column(self, name: str) -> Tensor:
        """One column as an array of shape ``[rows, ...]``; no other column is read.

        Missing numbers are NaN, text is ``str`` objects with ``None`` where missing, lists are further axes, images
        are their paths.

        Raises
        ------
        InvalidData
            If there is no such column, or its lists have different lengths.
        """
        self._check_column(name)
        return to_numpy(self._arrow([name]).column(0), name)

    def datatype(self, name: str) -> Datatype | None:
        """The datatype of a column's elements, or ``None`` if no tensor can hold them (dates, images)."""
        self._check_column(name)
        if is_image(self.schema.field(name).type):
            return None
        found = to_numpy(self._head(name), name).dtype
        if found.kind in "iub" and self._has_missing(name):  # then it is read as floats
            return Datatype.FP64
        try:
            return Datatype.of(found)
        except ValueError:
            return None

    def class_names(self, name: str) -> tuple[str, ...]:
        """The classes of a column in the order of their numbers, where the data declare them; else nothing."""
        self._check_column(name)
        declared = (self.schema.field(name).metadata or {}).get(CLASSES)
        return tuple(json.loads(declared)) if declared else ()

    def features(self, patterns: Sequence[str] = (), *, label: str | None = None) -> tuple[str, ...]:
        """The columns that match any of the glob ``patterns`` (all, if there are none), but the label.

        Raises
        ------
        InvalidConfig
            If a pattern matches no column.
        """
        candidates = [name for name in self.columns if not is_label(name, label)]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                raise InvalidConfig(
                    f"data.features: {pattern!r} matches no column of {self.origin}{nearest(pattern, candidates)}; "
                    f"they are: {', '.join(candidates)}"
                )
        return tuple(n for n in candidates if not patterns or any(fnmatchcase(n, pattern) for pattern in patterns))

    def batches(self, size: int, columns: Sequence[str] | None = None) -> Iterator[Table]:
        """All rows, in order, as tables of ``size`` rows, the last of what is left.

        Parameters
        ----------
        size : int
        columns : sequence of str, optional
            Only these are read; all by default.
        """
        names = list(self.columns if columns is None else columns)
        for number, part in enumerate(rebatched(self._read(names), self._reader.select(names), size)):
            yield Table(
                part, digest=self._part_digest(f"batch {number} of {size}"), origin=self.origin, image=self._image
            )

    def sample(self, rows: int, seed: int = 0, columns: Sequence[str] | None = None) -> Table:
        """Up to ``rows`` rows drawn at random, in their order; the same seed draws the same ones.

        Examples
        --------
        >>> make_table({"x": range(1_000)}).sample(3, seed=1).column("x").tolist() == sorted(
        ...     make_table({"x": range(1_000)}).sample(3, seed=1).column("x").tolist()
        ... )
        True
        """
        drawn = sample_rows(self.rows, rows, seed)
        names = list(self.columns if columns is None else columns)
        if columns is None and len(drawn) == self.rows and isinstance(self._reader, InMemory):
            return self
        return self._taken(drawn, names)

    def feed(
        self,
        specs: Sequence[TensorSpec],
        rows: slice | NDArray[Any] | None = None,
        *,
        label: str | None = None,
    ) -> dict[str, Tensor]:
        """These rows as a model's inputs, all at once; :meth:`feeds` gives them in batches.

        An input is filled by the columns that its spec names; else by the column of its own name; else, being the only
        input, by all numeric columns but ``label``, if they are as many as it takes; else by the only column of images.

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
        problems = Problems()
        plan = self._plan(specs, label, problems)
        names = planned(plan)
        part = self._arrow(names) if rows is None else self._taken(rows, names).arrow
        feed = self._feeding.fill(specs, plan, part, problems)
        self._check(problems)
        return feed

    def feeds(
        self, specs: Sequence[TensorSpec], size: int, *, label: str | None = None
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """All rows as a model's inputs, in batches of ``size``: the number of rows of each, and :meth:`feed` of these rows."""
        problems = Problems()
        plan = self._plan(specs, label, problems)
        self._check(problems)
        names = planned(plan)
        start = 0
        for part in rebatched(self._read(names), self._reader.select(names), feed_rows(specs, size)):
            feed = self._feeding.fill(specs, plan, part, problems, start)
            self._check(problems)
            for first in range(0, part.num_rows, size):
                count = min(size, part.num_rows - first)
                yield count, {name: array[first : first + count] for name, array in feed.items()}
            start += part.num_rows

    def needed(self, specs: Sequence[TensorSpec], *, label: str | None = None) -> tuple[str, ...]:
        """The columns that :meth:`feed` fills these inputs from. Raises :class:`InvalidData` if it cannot.

        Examples
        --------
        >>> table = make_table({"id": ["p", "q"], "a": [1.0, 2.0], "b": [3.0, 4.0], "y": [0, 1]})
        >>> table.needed([TensorSpec("x", Datatype.FP32, (-1, 2))], label="y")
        ('a', 'b')
        """
        problems = Problems()
        plan = self._plan(specs, label, problems)
        self._check(problems)
        return tuple(planned(plan))

    def problems(self, specs: Sequence[TensorSpec], *, label: str | None = None) -> list[str]:
        """All that keeps :meth:`feeds` from giving these inputs, one line each, found by going through all rows.

        Examples
        --------
        >>> table = make_table({"a": [1.0, float("nan")], "b": ["x", "y"]})
        >>> spec = TensorSpec("x", Datatype.FP32, (-1, 2), columns=("a", "b"))
        >>> for line in table.problems([spec]):
        ...     print(line)
        column 'a' has 1 missing or infinite numbers, first in row 1; impute or drop them (input 'x', FP32)
        column 'b' holds text, not numbers (input 'x', FP32)
        """
        problems = Problems()
        plan = self._plan(specs, label, problems)
        names = planned(plan)
        start = 0
        for part in rebatched(self._read(names), self._reader.select(names), feed_rows(specs, 1)) if names else ():
            self._feeding.fill(specs, plan, part, problems, start, check=True)
            start += part.num_rows
        return problems.lines()

    def broken_images(self) -> list[str]:
        """The images that cannot be decoded, one line each with row and path, in any column; none if there are no images."""
        problems = Problems()
        for name in self.columns:
            if is_image(self.schema.field(name).type) and name not in self._feeding.sound:
                before, start = len(problems.found), 0
                for part in self._read([name]):
                    tell_broken(name, part.column(0), problems, start)
                    start += part.num_rows
                if len(problems.found) == before:
                    self._feeding.sound.add(name)
        return problems.lines()

    def mask(self, where: str) -> NDArray[np.bool_]:
        """Which rows satisfy a SQL predicate over the columns; NULL is false. Raises :class:`InvalidConfig` if it is wrong.

        Examples
        --------
        >>> make_table({"ink": [0.1, 0.5, float("nan")]}).mask("ink < 0.25").tolist()
        [True, False, False]
        """
        if where not in self._masks:
            if len(self._masks) >= _MASKS:
                self._masks.clear()
            with readable(self.origin):
                self._masks[where] = evaluate_predicate(self._reader, where)
            self._masks[where].setflags(write=False)
        return self._masks[where]

    def select(self, rows: slice | NDArray[Any] | Sequence[int]) -> Table:
        """The rows of a boolean mask, of indices (in their order) or of a slice, held in memory."""
        return self._taken(rows, self.columns)

    def with_column(self, name: str, values: ArrayLike) -> Table:
        """The same rows, one column of them with other values; held in memory.

        Examples
        --------
        >>> make_table({"x": [1, 2]}).with_column("x", [3, 4]).column("x").tolist()
        [3, 4]
        """
        self._check_column(name)
        array = np.asarray(values)
        arrow = self.arrow.set_column(self.columns.index(name), name, from_numpy(array))
        digest = self._part_digest(f"{name} = {_content_digest({name: array})}")
        return Table(arrow, digest=digest, origin=self.origin, image=self._image)

    def _taken(self, rows: slice | NDArray[Any] | Sequence[int], columns: Sequence[str]) -> Table:
        which = rows if isinstance(rows, slice) else np.asarray(rows)
        chosen = np.arange(self.rows)[which if isinstance(which, slice) or len(which) else slice(0)]
        distinct, back = np.unique(chosen, return_inverse=True)
        with readable(self.origin):
            part = self._reader.take(list(columns), distinct)
        if not np.array_equal(distinct, chosen):
            part = part.take(back)
        return Table(
            part, digest=self._part_digest(chosen.astype("<i8").tobytes()), origin=self.origin, image=self._image
        )

    def _part_digest(self, which: str | bytes) -> Callable[[], str]:
        said = which.encode() if isinstance(which, str) else which
        return lambda: f"sha256:{hashlib.sha256(self.digest.encode() + said).hexdigest()}"

    def _read(self, columns: Sequence[str]) -> Iterator[Any]:
        batches = self._reader.read(list(columns))
        while True:
            with readable(self.origin):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _arrow(self, columns: Sequence[str]) -> Any:
        import pyarrow as pa

        if isinstance(self._reader, InMemory):
            return self._reader.arrow.select(list(columns))
        return pa.Table.from_batches(map(compacted, self._read(columns)), self._reader.select(columns))

    def _head(self, name: str) -> Any:
        """The column's first row."""
        import pyarrow as pa

        return pa.Table.from_batches([*self._reader.read([name], 0, 1)], self._reader.select([name])).column(0)

    def _has_missing(self, name: str) -> bool:
        return any(to_numpy(part.column(0), name).dtype.kind == "f" for part in self._read([name]))

    def _element_shape(self, name: str) -> tuple[int, ...] | None:
        kind = self.schema.field(name).type
        return None if is_image(kind) else () if is_words(kind) else to_numpy(self._head(name), name).shape[1:]

    def _check_column(self, name: str) -> None:
        if name not in self.columns:
            raise InvalidData(
                f"{self.origin} has no column {name!r}{nearest(name, self.columns)}; it has: {', '.join(self.columns)}"
            )

    def _check(self, problems: Problems) -> None:
        if problems.found:
            raise InvalidData(f"{self.origin}: {problems}")

    def _plan(self, specs: Sequence[TensorSpec], label: str | None, problems: Problems) -> Plan:
        def shape(name: str) -> tuple[int, ...] | None:
            try:
                return self._element_shape(name)
            except InvalidData as error:  # the first row's list is missing
                problems.add(str(error))
                return (0,)

        return plan_columns(specs, self.columns, self._scalars(label), shape, problems)

    def _scalars(self, label: str | None) -> list[str]:
        from pyarrow import types

        tests = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
        return [f.name for f in self.schema if not is_label(f.name, label) and any(test(f.type) for test in tests)]


def load_table(
    path: Path | str, *, origin: str = "", settings: DataSettings | None = None, root: Path | None = None
) -> Table:
    """A data file, a folder of them or of images, what matches a pattern, what a URL names, or the rows of a query.

    Parameters
    ----------
    path : Path or str
        As ``[data] test``, see :class:`~fairway.sources.settings.DataSettings`.
    origin : str, optional
        What errors and reports call it; the path by default.
    settings : DataSettings, optional
        The types of text columns, what becomes of images, and the database.
    root : Path, optional
        What ``path`` is relative to; by default the working directory.

    Raises
    ------
    InvalidData
        If it is missing, empty, broken or of an unknown form.
    MissingExtra
        If pyarrow is not installed.
    """
    settings = settings or DataSettings(test=str(path))
    opened = open_data(str(path), settings, root or Path())
    return Table(opened.reader, digest=opened.digest, origin=without_secrets(origin or str(path)), image=settings.image)


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


def plain_column(table: Table, name: str) -> Tensor | None:
    """A column as :meth:`Table.column` gives it; ``None`` where it holds structs, images, or lists of different lengths."""
    from pyarrow import types

    if types.is_struct(table.schema.field(name).type):
        return None
    try:
        return table.column(name)
    except InvalidData:
        return None


def is_label(name: str, label: str | None) -> bool:
    """Whether a column is the label, or one of those that a label with stars stands for.

    Examples
    --------
    >>> is_label("digit", "digit"), is_label("is_cat", "is_*"), is_label("ink", "is_*")
    (True, True, False)
    """
    return name == label or (label is not None and "*" in label and fnmatchcase(name, label))


def sample_rows(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` distinct row numbers below ``rows``, ascending; all of them if there are no more."""
    if count >= rows:
        return np.arange(rows, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False)).astype(np.int64)


def _content_digest(arrays: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        content = repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()
        for part in (name.encode(), str(array.dtype).encode(), str(array.shape).encode(), content):
            digest.update(len(part).to_bytes(8, "little") + part)
    return f"sha256:{digest.hexdigest()}"
