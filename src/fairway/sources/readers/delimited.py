"""CSV and TSV: parsed once, with types that hold for the whole file."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from fairway.core.errors import InvalidData
from fairway.sources.readers.base import CHUNK_BYTES, Reader
from fairway.sources.readers.places import Place
from fairway.sources.readers.spool import spooled
from fairway.sources.readers.types import arrow_types, check_types

_COMPLAINT = re.compile(
    r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (.+?): invalid value '(.*)'", re.DOTALL
)
_LOOSER = {
    ("int64", "double"),
    ("date32[day]", "timestamp[s]"),
    ("date32[day]", "timestamp[ns]"),
    ("timestamp[s]", "timestamp[ns]"),
}
_SHOWN = 60
_BLOCK = 2**20  # the parser reads some tens of these ahead


def read_delimited(place: Place, types: Mapping[str, str]) -> Reader:
    """The rows of one file.

    Types are inferred from the first 16 MiB, unless ``types`` says them. A value further on that does not fit is an error that
    names row and column; but whole numbers that turn out to have fractions are floats throughout, and a column that was empty
    so far takes the type of its first value.
    """
    import pyarrow as pa

    known = _inferred(place)
    check_types(types, list(known), place.name)
    known |= arrow_types(types)
    while True:
        try:
            with _open(place, known) as opened:
                return spooled(opened, opened.schema)
        except pa.ArrowInvalid:
            column, loosened = _misfit(place, known, types)
            known[column] = loosened


def _inferred(place: Place) -> dict[str, Any]:
    with _open(place, {}, CHUNK_BYTES) as opened:
        names = opened.schema.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise InvalidData(f"{place.name} has more than one column {twice[0]!r}; give each its own name")
        return {field.name: field.type for field in opened.schema}


def _open(place: Place, types: Mapping[str, Any], block: int | None = None, *, threads: bool = True) -> Any:
    import pyarrow.csv

    return pyarrow.csv.open_csv(
        place.stream(),
        read_options=pyarrow.csv.ReadOptions(block_size=block or _BLOCK, use_threads=threads),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter="\t" if place.suffix == ".tsv" else ",", newlines_in_values=True
        ),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types),
    )


def _misfit(place: Place, known: Mapping[str, Any], said: Mapping[str, str]) -> tuple[str, Any]:
    """The column that holds what its type does not, and a type that does; or the error, with its row."""
    import pyarrow as pa

    found, names = None, list(known)
    try:
        with _open(place, known, threads=False) as opened:  # rows are counted only when they are read one by one
            for _ in opened:
                pass
    except pa.ArrowInvalid as error:
        found = _COMPLAINT.search(str(error))
        if found is None:
            raise
    assert found is not None
    column, row, kind, value = names[int(found[1])], int(found[2]) - 2, found[3], found[4]
    alone = _type_of(value)
    if column not in said and (kind == "null" or (kind, str(alone)) in _LOOSER):
        return column, alone
    raise InvalidData(
        f"{place.name}: column {column!r} holds {value[:_SHOWN]!r} in row {row:,}, where {kind} is expected "
        f"({'as data.types says' if column in said else 'from the rows before it'}); correct the value, or say the "
        f'column\'s type, as in: types = {{ {_key(column)} = "text" }} under [data]'
    )


def _type_of(value: str) -> Any:
    import pyarrow.csv

    if '"' in value or "\n" in value:
        return pyarrow.string()
    return pyarrow.csv.read_csv(io.BytesIO(f'v\n"{value}"\n'.encode())).schema.field("v").type


def _key(column: str) -> str:
    return column if re.fullmatch(r"[A-Za-z0-9_-]+", column) else f'"{column}"'
