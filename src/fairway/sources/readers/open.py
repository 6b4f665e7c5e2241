"""From a path or URL to a reader of its rows."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairway.core.errors import FairwayError, InvalidData
from fairway.core.extras import require
from fairway.sources.readers.base import Reader, require_distinct
from fairway.sources.readers.delimited import read_delimited
from fairway.sources.readers.imagefolder import METADATA, SUFFIXES, read_image_folder
from fairway.sources.readers.ipc import ArrowFile
from fairway.sources.readers.joined import Joined, partitions
from fairway.sources.readers.jsonl import read_jsonl
from fairway.sources.readers.npz import read_npz
from fairway.sources.readers.parquet import ParquetFile
from fairway.sources.readers.places import Found, Place, find_places, without_secrets
from fairway.sources.readers.saved import SPLITS, STATE, read_saved, saved_files, split_of, with_classes
from fairway.sources.readers.sql import PREFIX, read_query
from fairway.sources.settings import DataSettings

_FORMS: dict[str, Callable[[Place, Mapping[str, str]], Reader]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": lambda place, _: with_classes(ParquetFile(place)),
    ".pq": lambda place, _: with_classes(ParquetFile(place)),
    ".arrow": lambda place, _: with_classes(ArrowFile(place)),
    ".feather": lambda place, _: with_classes(ArrowFile(place)),
    ".npz": lambda place, _: read_npz(place),
}

ACCEPTED = f"{', '.join(_FORMS)} files, folders of these, of images or of a Hugging Face data set, and sql: queries"
"""The accepted forms, in words."""


def open_file(place: Place, types: Mapping[str, str]) -> Reader:
    """A reader of one file. Raises :class:`InvalidData` naming the file and what would be accepted."""
    form = _FORMS.get(place.suffix)
    if form is None:
        raise InvalidData(f"{place.name} has an unknown suffix; accepted are {ACCEPTED}")
    if not place.exists():
        raise InvalidData(f"{place.name} does not exist; accepted are {ACCEPTED}")
    if place.is_folder():
        raise InvalidData(f"{place.name} is a folder, though it is named like a file; accepted are {ACCEPTED}")
    if place.size() == 0:
        raise InvalidData(f"{place.name} is empty; write it again")
    with readable(place.name, f" as {place.suffix}"):
        reader = form(place, types)
    require_distinct(reader.schema.names, place.name)
    return reader


def open_files(places: list[Place], root: str, types: Mapping[str, str]) -> Reader:
    """Several files of one kind as one; folders below ``root`` such as ``year=2024`` are columns."""
    kinds = Counter(place.suffix for place in places)
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.most_common())
        raise InvalidData(
            f"{root} holds files of several kinds ({listed}); name those to read by a pattern, as in {root}/*.parquet"
        )
    if len(places) == 1 and "=" not in places[0].path[len(root) :]:
        return open_file(places[0], types)
    below = [place.path.removeprefix(root) for place in places]
    return Joined({place.name: open_file(place, types) for place in places}, partitions(below))


@contextmanager
def readable(name: str, how: str = "") -> Iterator[None]:
    """What the libraries raise within the block becomes :class:`InvalidData`."""
    pa = require("pyarrow", extra="evaluate")
    try:
        yield
    except Exception as error:
        broken = isinstance(error, pa.ArrowException | OSError | ValueError | KeyError | EOFError | zipfile.BadZipFile)
        if isinstance(error, FairwayError) or not (broken or "://" in name):  # each store raises its own
            raise
        reason = without_secrets(str(error).strip()).splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidData(f"{name} cannot be read{how}: {reason}; accepted are {ACCEPTED}") from None


@dataclass(frozen=True)
class Opened:
    """A reader, and what computes the digest of what it reads."""

    reader: Reader
    digest: Callable[[], str]


def open_data(given: str, settings: DataSettings, root: Path) -> Opened:
    """What ``given`` names, as ``[data] test`` does.

    Raises
    ------
    InvalidData
        If it is missing, empty, broken or of an unknown form.
    InvalidConfig
        If the settings do not fit it.
    """
    if given.startswith(PREFIX):
        with readable(without_secrets(given)):
            opened = Opened(*read_query(given, settings.database, root))
    else:
        opened = _opened(find_places(given, root), settings.types)
    rows, columns = opened.reader.rows, len(opened.reader.schema)
    if rows == 0 or columns == 0:
        raise InvalidData(
            f"{without_secrets(given)} has {rows} rows and {columns} columns; it needs at least one of each"
        )
    return opened


def data_files(given: str, root: Path) -> list[Place]:
    """All files that :func:`open_data` would read; none for a query."""
    if given.startswith(PREFIX):
        return []
    found = find_places(given, root)
    return [
        each for place in found.places for each in (place.files() if place.is_folder() else (place,)) if each.exists()
    ]


def _opened(found: Found, types: Mapping[str, str]) -> Opened:
    first, *others = found.places
    if others:
        return Opened(open_files(found.places, found.root, types), files_digest(found.places, found.root))
    if found.split and not first.child(SPLITS).exists() and not first.child(STATE).exists():
        first = first.child(found.split)
    if not first.is_folder() or first.suffix in _FORMS:
        return Opened(open_file(first, types), files_digest([first]))
    with readable(first.name):
        if first.child(SPLITS).exists() or first.child(STATE).exists():
            folder = split_of(first, found.split)
            return Opened(read_saved(folder), files_digest([*saved_files(folder), folder.child(STATE)], folder.path))
        files = list(first.files())
        if any(place.path.lower().endswith(SUFFIXES) for place in files):
            tables = [place for place in files if place.path.rpartition("/")[2] in METADATA]
            metadata = {place.path[len(first.path) + 1 :]: open_file(place, types) for place in tables}
            return Opened(read_image_folder(first, files, metadata), files_digest(files, first.path))
    if not files:
        raise InvalidData(f"{first.name} is a folder without files; accepted are {ACCEPTED}")
    return Opened(open_files(files, first.path, types), files_digest(files, first.path))


def files_digest(places: list[Place], root: str = "") -> Callable[[], str]:
    """Of one file, its SHA-256; of several, that of their names and digests. Refuses files that have changed by then."""
    before = [place.stamp() for place in places]

    def digest() -> str:
        digests = [place.sha256() for place in places]
        for place, stamp in zip(places, before, strict=True):
            if place.stamp() != stamp:
                raise InvalidData(f"{place.name} has changed while it was read; run this again")
        if len(places) == 1 and not root:
            return f"sha256:{digests[0]}"
        listed = "\n".join(
            f"{place.path.removeprefix(root)}:{each}" for place, each in zip(places, digests, strict=True)
        )
        return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"

    return digest
