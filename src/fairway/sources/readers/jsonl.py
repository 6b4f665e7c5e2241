"""JSON lines: one object per line, with types that hold for the whole file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fairway.core.errors import InvalidData
from fairway.sources.readers.base import CHUNK_BYTES, Reader
from fairway.sources.readers.places import Place
from fairway.sources.readers.spool import spooled
from fairway.sources.readers.types import arrow_types, check_types

_ROW = re.compile(r"^JSON parse error: (.*) in row (\d+)$", re.DOTALL)


def read_jsonl(place: Place, types: Mapping[str, str]) -> Reader:
    """The rows of one file.

    It is parsed twice: once for the types, which are those that hold all values of a column (a key that some lines lack is
    missing there), and once for the values. Text here and numbers there is an error that names row and column.
    """
    import pyarrow as pa

    said = arrow_types(types)
    schema, row = pa.schema([]), 0
    for block in _blocks(place):
        table = _parsed(block, place, row, None)
        schema = _unified(schema, table.schema, block, place, row)
        row += table.num_rows
    check_types(types, schema.names, place.name)
    final = pa.schema([pa.field(field.name, said.get(field.name, field.type)) for field in schema])

    def batches() -> Iterator[Any]:
        start = 0
        for block in _blocks(place):
            table = _parsed(block, place, start, schema).select(schema.names)
            start += table.num_rows
            yield from table.cast(final).combine_chunks().to_batches()

    return spooled(batches(), final)


def _blocks(place: Place) -> Iterator[bytes]:
    """Whole lines of about 16 MiB together."""
    with place.stream() as stream:
        rest = b""
        while read := stream.read(CHUNK_BYTES):
            end = read.rfind(b"\n") + 1
            if end:
                yield rest + read[:end]
                rest = read[end:]
            else:
                rest += read
        if rest.strip():
            yield rest


def _parsed(block: bytes, place: Place, start: int, schema: Any) -> Any:
    import pyarrow as pa
    import pyarrow.json

    try:
        return pyarrow.json.read_json(
            io.BytesIO(block),
            read_options=pyarrow.json.ReadOptions(block_size=len(block) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
        )
    except pa.ArrowInvalid as error:
        found = _ROW.match(str(error))
        if found is None:
            raise
        raise InvalidData(f"{place.name}: row {start + int(found[2]):,} cannot be read: {found[1]}") from None


def _unified(schema: Any, more: Any, block: bytes, place: Place, start: int) -> Any:
    import pyarrow as pa

    try:
        return pa.unify_schemas([schema, more], promote_options="permissive")
    except pa.ArrowException:
        for field in more:
            if field.name in schema.names and not _go_together(schema.field(field.name).type, field.type):
                row, value = _first_misfit(block, field.name, schema.field(field.name).type)
                raise InvalidData(
                    f"{place.name}: column {field.name!r} holds {value!r:.60} in row {start + row:,}, where "
                    f"{schema.field(field.name).type} is expected (from the rows before it); correct the value"
                ) from None
        raise


def _go_together(one: Any, other: Any) -> bool:
    import pyarrow as pa

    try:
        pa.unify_schemas([pa.schema([("v", one)]), pa.schema([("v", other)])], promote_options="permissive")
    except pa.ArrowException:
        return False
    return True


def _first_misfit(block: bytes, name: str, kind: Any) -> tuple[int, Any]:
    import pyarrow as pa

    lines = (line for line in block.splitlines() if line.strip())
    for row, line in enumerate(lines):
        value = msgspec.json.decode(line).get(name)
        if value is not None and not _go_together(kind, pa.array([value]).type):
            return row, value
    return 0, None
