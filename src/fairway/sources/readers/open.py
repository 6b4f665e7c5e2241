"""From a path or URL to a reader of its rows."""

from __future__ import annotations

import glob
import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fairway.core.errors import InvalidData
from fairway.core.extras import require
from fairway.sources.readers.base import Reader
from fairway.sources.readers.delimited import read_delimited
from fairway.sources.readers.ipc import ArrowFile
from fairway.sources.readers.joined import Joined, partitions
from fairway.sources.readers.npz import read_npz
from fairway.sources.readers.parquet import ParquetFile
from fairway.sources.readers.places import Place, find_places

_FORMS: dict[str, Callable[[Place, Mapping[str, str]], Reader]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".parquet": lambda place, _: ParquetFile(place),
    ".pq": lambda place, _: ParquetFile(place),
    ".arrow": lambda place, _: ArrowFile(place),
    ".feather": lambda place, _: ArrowFile(place),
    ".npz": lambda place, _: read_npz(place),
}

ACCEPTED = ", ".join(_FORMS) + " files"
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
    twice = sorted(name for name, count in Counter(reader.schema.names).items() if count > 1)
    if twice:
        raise InvalidData(f"{place.name} has more than one column {', '.join(map(repr, twice))}; give each its own name")
    return reader


def open_files(places: list[Place], root: str, types: Mapping[str, str]) -> Reader:
    """Several files of one kind as one; folders below ``root`` such as ``year=2024`` are columns."""
    kinds = Counter(place.suffix for place in places)
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.most_common())
        raise InvalidData(f"{root} holds files of several kinds ({listed}); name those to read by a pattern, as in {root}/*.parquet")
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
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidData(f"{name} cannot be read{how}: {reason}; accepted are {ACCEPTED}") from None


@dataclass(frozen=True)
class Opened:
    """A reader, and what computes the digest of what it reads."""

    reader: Reader
    digest: Callable[[], str]


def open_data(given: str, types: Mapping[str, str]) -> Opened:
    """What a path, a pattern or a URL names.

    Raises
    ------
    InvalidData
        If it is missing, empty, broken or of an unknown form.
    """
    places = find_places(given)
    if len(places) == 1 and not (places[0].is_folder() and not places[0].suffix):
        opened = Opened(open_file(places[0], types), files_digest(places))
    else:
        root = places[0].path if len(places) == 1 else _root(given)
        files = list(places[0].files()) if len(places) == 1 else places
        if not files:
            raise InvalidData(f"{given} is a folder without files; accepted are {ACCEPTED}")
        opened = Opened(open_files(files, root, types), files_digest(files, root))
    rows, columns = opened.reader.rows, len(opened.reader.schema)
    if rows == 0 or columns == 0:
        raise InvalidData(f"{given} has {rows} rows and {columns} columns; it needs at least one of each")
    return opened


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
        listed = "\n".join(f"{place.path.removeprefix(root)}:{each}" for place, each in zip(places, digests, strict=True))
        return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"

    return digest


def _root(pattern: str) -> str:
    """The folder that a pattern's matches lie in."""
    plain = pattern.split("://", 1)[-1]
    parts = plain.split("/")
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first])
