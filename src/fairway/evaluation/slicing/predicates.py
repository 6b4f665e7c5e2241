"""Predicates over single columns: what slices are made of, each with the SQL that selects the same rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.core.extras import require

if TYPE_CHECKING:
    from fairway.core.tensors import Tensor
    from fairway.evaluation.predictions import Mask

_LEAST = 10
"""Rows on either side of a predicate, without which it is left out."""
_VALUES = 30
_WORDS = 40
_FEW_NUMBERS = 6
_CUTS = ((0.2, 0.35, 0.5, 0.65, 0.8), (0.25, 0.5, 0.75), (0.2, 0.8))
_COLUMNS = (30, 75)
"""Columns up to which there are five, and three, cuts per number."""


@dataclass(frozen=True)
class Predicate:
    """Rows with something in common.

    Attributes
    ----------
    text : str
        For people.
    rows : bool array of shape (rows,)
    where : str
        The same in SQL over the data's columns; empty where that cannot be.
    overconfidence_only : bool
        Whether it is tried by no other loss, being about the model's confidence: less confident answers are more often
        wrong, and should be.
    """

    text: str
    rows: Mask
    where: str = ""
    overconfidence_only: bool = False


def column_predicates(name: str, values: Tensor, *, columns: int) -> Iterator[Predicate]:
    """Those of one column, of values, texts or images, among ``columns`` in all; none of a kind that is not understood."""
    if values.ndim > 2:
        yield from _image_predicates(name, values)
    elif values.ndim == 2 and values.dtype.kind in "iuf" and values.shape[1] <= _COLUMNS[0]:
        for place, each in enumerate(values.T.astype(np.float64), 1):  # SQL counts from 1
            element = f"{quoted(name)}[{place}]"
            yield from _number_predicates(f"{name}[{place}]", element, each, columns * values.shape[1])
    elif values.ndim == 1:
        column = quoted(name)
        if values.dtype.kind == "b":
            yield from _kept(
                Predicate(f"{name} is {str(v).lower()}", values == v, _is(column, v)) for v in (True, False)
            )
        elif values.dtype.kind in "iuf":
            yield from _number_predicates(name, column, values.astype(np.float64), columns)
        elif values.dtype.kind == "M":
            yield from _time_predicates(name, column, values)
        elif values.dtype == object:
            yield from _object_predicates(name, column, values)


def quoted(name: str) -> str:
    """A column's name as SQL: in quotes where it needs them.

    Examples
    --------
    >>> quoted("ink"), quoted("order"), quoted('5" disks')
    ('ink', '"order"', '"5"" disks"')
    """
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _reserved()
    return name if plain else '"' + name.replace('"', '""') + '"'


def _kept(found: Iterator[Predicate]) -> Iterator[Predicate]:
    for each in found:
        inside = int(each.rows.sum())
        if _LEAST <= inside <= len(each.rows) - _LEAST:
            yield each


def _number_predicates(name: str, column: str, values: Tensor, columns: int, sql: bool = True) -> Iterator[Predicate]:
    known = np.isfinite(values)
    different = np.unique(values[known])
    if len(different) < _FEW_NUMBERS:
        cuts = different[:-1].tolist() if len(different) > 2 else []
        yield from _kept(Predicate(f"{name} = {v:g}", values == v, f"{column} = {_digits(v)}") for v in different)
    else:
        shares = _CUTS[sum(columns > most for most in _COLUMNS)]
        low, high = np.quantile(values[known], [0.1, 0.9])
        cuts = [_rounded(cut, 0.02 * float(high - low)) for cut in np.quantile(values[known], shares)]
    for cut in dict.fromkeys(float(cut) for cut in cuts):
        with np.errstate(invalid="ignore"):
            sides = (("≤", "<=", values <= cut), (">", ">", values > cut))
        for sign, operator, rows in sides:
            where = f"{column} {operator} {_digits(cut)}" if sql else ""
            yield from _kept(iter([Predicate(f"{name} {sign} {_digits(cut)}", rows, where)]))
    yield from _missing(name, column, ~known & ~np.isinf(values))


def _time_predicates(name: str, column: str, values: Tensor) -> Iterator[Predicate]:
    known = ~np.isnat(values)
    if known.any():
        seconds = values.astype("datetime64[s]").astype(np.int64)
        for cut in dict.fromkeys(int(cut) for cut in np.quantile(seconds[known], _CUTS[0])):
            moment = str(np.datetime64(cut, "s")).replace("T", " ")
            for sign, rows in (("<=", seconds <= cut), (">", seconds > cut)):
                shown = f"{name} {sign.replace('<=', '≤')} {moment}"
                where = f"date_trunc('second', {column}) {sign} TIMESTAMP '{moment}'"
                yield from _kept(iter([Predicate(shown, rows & known, where)]))
    yield from _missing(name, column, ~known)


def _object_predicates(name: str, column: str, values: Tensor) -> Iterator[Predicate]:
    texts = [value if isinstance(value, str) else None for value in values.tolist()]
    missing = np.array([value is None for value in values.tolist()])
    yield from _missing(name, column, missing)
    if all(text is None for text in texts):
        return
    counts = Counter(text for text in texts if text is not None)
    frequent = [value for value, count in counts.most_common(_VALUES) if count >= _LEAST]
    yield from _kept(
        Predicate(f"{name} = {_shown(value)}", np.array([t == value for t in texts]), f"{column} = {_string(value)}")
        for value in frequent
    )
    if sum(counts[value] for value in frequent) < 0.5 * len(texts):
        yield from _text_predicates(name, column, texts)


def _text_predicates(name: str, column: str, texts: Sequence[str | None]) -> Iterator[Predicate]:
    known = np.array([text is not None for text in texts])
    lengths = np.array([len(text or "") for text in texts])
    for cut in dict.fromkeys(int(cut) for cut in np.quantile(lengths[known], _CUTS[0])):
        for sign, operator, rows in (("≤", "<=", lengths <= cut), (">", ">", lengths > cut)):
            shown = f"{name} has {sign} {cut} characters"
            yield from _kept(iter([Predicate(shown, rows & known, f"length({column}) {operator} {cut}")]))
    words = [set(re.findall(r"\w+", (text or "").lower())) for text in texts]
    counts = Counter(word for own in words for word in own)
    most = 0.5 * int(known.sum())
    frequent = [word for word, count in counts.most_common() if _LEAST <= count <= most and len(word) > 1][:_WORDS]
    for word in frequent:
        rows = np.array([word in own for own in words])
        pattern = rf"(^|[^\pL\pN_]){word}([^\pL\pN_]|$)"
        where = f"regexp_matches(lower({column}), {_string(pattern)})"
        yield from _kept(iter([Predicate(f"{name} has the word {_shown(word)}", rows, where)]))


def _image_predicates(name: str, values: Tensor) -> Iterator[Predicate]:
    if values.dtype.kind not in "iuf":
        return
    flat = values.reshape(len(values), -1).astype(np.float32)
    axes = (2, 3) if values.ndim == 4 and values.shape[1] in (1, 3) and values.shape[-1] not in (1, 3) else (1, 2)
    pixels = values.astype(np.float32)
    edges = sum(np.abs(np.diff(pixels, axis=axis)).reshape(len(values), -1).mean(axis=1) for axis in axes)
    statistics = {"brightness": flat.mean(axis=1), "contrast": flat.std(axis=1), "sharpness": np.asarray(edges)}
    for what, numbers in statistics.items():
        yield from _number_predicates(f"{what} of {name}", "", numbers.astype(np.float64), 1, sql=False)


def _missing(name: str, column: str, rows: Mask) -> Iterator[Predicate]:
    where = f"{column} IS NULL" if column else ""
    yield from _kept(iter([Predicate(f"{name} is missing", rows, where)]))


def _rounded(value: float, error: float) -> float:
    """The shortest number within ``error`` of ``value``: cuts are read by people."""
    for digits in range(1, 17):
        near = float(f"{value:.{digits}g}")
        if abs(near - value) <= error:
            return near
    return float(value)


def _digits(value: Any) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _string(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _shown(text: str) -> str:
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”"


def _is(column: str, value: bool) -> str:
    return column if value else f"NOT {column}"


@lru_cache(maxsize=1)
def _reserved() -> frozenset[str]:
    duckdb = require("duckdb", extra="evaluate")
    with duckdb.connect(":memory:") as database:
        found = database.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'")
        return frozenset(name for (name,) in found.fetchall())
