"""A data file to an Arrow table."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fairway.core.errors import InvalidData
from fairway.core.extras import require
from fairway.sources.columns import from_numpy


def read_arrow(path: Path) -> Any:
    """Read a data file into a ``pyarrow.Table``. Raises :class:`InvalidData` naming the file and what would be accepted."""
    read = _reader(path)
    pa = require("pyarrow", extra="evaluate")
    try:
        if path.stat().st_size == 0:
            raise InvalidData(f"{path} is empty; write it again")
        table = read(path)
    except (pa.ArrowException, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidData(f"{path} cannot be read as {path.suffix}: {reason}; accepted are {ACCEPTED}") from None
    twice = sorted(name for name, count in Counter(table.column_names).items() if count > 1)
    if twice:
        raise InvalidData(f"{path} has more than one column {', '.join(map(repr, twice))}; give each its own name")
    if table.num_rows == 0 or table.num_columns == 0:
        raise InvalidData(
            f"{path} has {table.num_rows} rows and {table.num_columns} columns; it needs at least one of each"
        )
    return table


def _reader(path: Path) -> Callable[[Path], Any]:
    if path.suffix.lower() not in _READERS:
        raise InvalidData(f"{path} has an unknown suffix; accepted are {ACCEPTED}")
    if path.is_dir():
        raise InvalidData(f"{path} is a folder; accepted are {ACCEPTED}")
    if not path.exists():
        raise InvalidData(f"{path} does not exist; accepted are {ACCEPTED}")
    return _READERS[path.suffix.lower()]


def _csv(path: Path) -> Any:
    import pyarrow.csv

    return pyarrow.csv.read_csv(path)


def _tsv(path: Path) -> Any:
    import pyarrow.csv

    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read()


def _arrow(path: Path) -> Any:
    """The file format (which Feather 2 is), or the stream format."""
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        magic = file.read(6)
        file.seek(0)
        opened = pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)
        with opened:
            return opened.read_all()


def _npz(path: Path) -> Any:
    import pyarrow as pa

    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise InvalidData(
            f"{path} holds arrays of different numbers of rows ({lengths}); every array needs one per row"
        )
    return pa.table({name: from_numpy(array) for name, array in arrays.items()})


_READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".pq": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".npz": _npz,
}

ACCEPTED = ", ".join(_READERS) + " files"
"""The accepted forms, in words."""
