"""Types that the user says, where a text file leaves doubt: ``[data] types``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairway.core.errors import InvalidConfig
from fairway.sources.mapping import nearest

KNOWN = {
    "bool": "bool",
    "int": "int64",
    "float": "float64",
    "text": "string",
    "date": "date32",
    "time": "timestamp[us]",
}


def arrow_types(types: Mapping[str, str]) -> dict[str, Any]:
    """Arrow's types by column name. Raises :class:`InvalidConfig` for an unknown word."""
    import pyarrow as pa

    for name, said in types.items():
        if said not in KNOWN:
            raise InvalidConfig(
                f"data.types: {said!r} for column {name!r} is no type{nearest(said, list(KNOWN))}; known: {', '.join(KNOWN)}"
            )
    return {name: pa.type_for_alias(KNOWN[said]) for name, said in types.items()}


def check_types(types: Mapping[str, str], columns: Sequence[str], name: str) -> None:
    """Raise :class:`InvalidConfig` for a column that is not there."""
    if absent := next((column for column in types if column not in columns), None):
        raise InvalidConfig(
            f"data.types: {name} has no column {absent!r}{nearest(absent, columns)}; it has: {', '.join(columns[:40])}"
        )
