"""Hugging Face data sets on disk: what ``save_to_disk`` wrote, read without its library.

The form: a folder with ``state.json`` (which Arrow stream files, in order), ``dataset_info.json`` (the features) and the
files; of several splits, ``dataset_dict.json`` and one such folder each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidData
from fairway.sources.mapping import nearest
from fairway.sources.readers.base import Reader
from fairway.sources.readers.ipc import ArrowFile
from fairway.sources.readers.joined import Joined
from fairway.sources.readers.places import Place

STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
CLASSES = b"fairway.classes"
_METADATA = b"huggingface"


def split_of(folder: Place, split: str) -> Place:
    """The folder of one split. Raises :class:`InvalidData`, naming those that there are, if the choice is not clear."""
    if not folder.child(SPLITS).exists():
        if split:
            raise InvalidData(f"{folder.name} is a data set without splits; leave out #{split}")
        return folder
    known = list(_json(folder.child(SPLITS)).get("splits", []))
    if split in known:
        return folder.child(split)
    if not split and len(known) == 1:
        return folder.child(known[0])
    what = f"has no split {split!r}{nearest(split, known)}" if split else "has several splits"
    raise InvalidData(
        f"{folder.name} {what}; name one of {', '.join(known)}, as in {folder.name}#{known[0] if known else 'test'}"
    )


def saved_files(folder: Place) -> list[Place]:
    """The Arrow files of a split, in order."""
    names = [str(entry["filename"]) for entry in _json(folder.child(STATE)).get("_data_files", [])]
    if not names:
        raise InvalidData(f"{folder.child(STATE).name} names no data files; save the data set again")
    if bad := next((name for name in names if "/" in name or name.startswith(".")), None):
        raise InvalidData(f"{folder.child(STATE).name} names a file outside its folder: {bad!r}")
    return [folder.child(name) for name in names]


def read_saved(folder: Place) -> Reader:
    """One split, its class labels being their names."""
    files = saved_files(folder)
    if absent := next((place for place in files if not place.exists()), None):
        raise InvalidData(f"{absent.name} is absent, though {STATE} names it; save the data set again")
    parts: dict[str, Reader] = {place.name: ArrowFile(place) for place in files}
    reader = Joined(parts) if len(parts) > 1 else next(iter(parts.values()))
    info = folder.child(INFO)
    features = _json(info).get("features") if info.exists() else None
    return with_classes(reader, features or {})


def with_classes(reader: Reader, features: Mapping[str, Any] | None = None) -> Reader:
    """The same rows with the numbers of class labels replaced by their names, where the features say them.

    Without ``features``, those in the schema's metadata are taken: Parquet files that Hugging Face's library wrote have them.
    """
    if features is None:
        written = (reader.schema.metadata or {}).get(_METADATA)
        features = _features(written) if written else {}
    names = {
        column: [str(name) for name in feature["names"]]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }
    known = {column: each for column, each in names.items() if column in reader.schema.names}
    return Named(reader, known) if known else reader


class Named(Reader):
    """Rows whose class labels are names instead of numbers; a negative number, which means none, is missing."""

    def __init__(self, reader: Reader, names: Mapping[str, Sequence[str]]) -> None:
        import pyarrow as pa

        self._reader, self._names, self.rows = reader, names, reader.rows
        fields = [
            pa.field(field.name, pa.string(), metadata={CLASSES: json.dumps(names[field.name])})
            if field.name in names
            else field
            for field in reader.schema
        ]
        self.schema = pa.schema(fields, reader.schema.metadata)

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """As the reader beneath does."""
        import pyarrow as pa

        for batch in self._reader.read(columns, start, stop):
            yield pa.RecordBatch.from_arrays(self._named(batch, columns), schema=self.select(columns))

    def take(self, columns: Sequence[str], indices: NDArray[np.int64]) -> Any:
        """As the reader beneath does."""
        import pyarrow as pa

        return pa.Table.from_arrays(
            self._named(self._reader.take(columns, indices), columns), schema=self.select(columns)
        )

    def _named(self, rows: Any, columns: Sequence[str]) -> list[Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        arrays = []
        for name in columns:
            array = rows.column(name)
            if name in self._names:
                known = pc.if_else(pc.less(array, 0), pa.scalar(None, array.type), array)
                array = pc.take(pa.array(self._names[name]), known)
            arrays.append(array)
        return arrays


def _features(written: bytes) -> Mapping[str, Any]:
    try:
        features = msgspec.json.decode(written)["info"]["features"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _json(place: Place) -> Any:
    try:
        return msgspec.json.decode(place.read(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidData(f"{place.name} cannot be read: {error}; save the data set again") from None
