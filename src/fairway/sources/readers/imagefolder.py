"""A folder of images: one folder per class, or a table beside them that says what each shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.core.errors import InvalidData
from fairway.sources.readers.base import InMemory, Reader
from fairway.sources.readers.places import Place

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
IMAGE, LABEL = "image", "label"
_AT_ONCE = 64


class ImageFolder(Reader):
    """Columns ``image`` (a struct of ``bytes`` and ``path``; files are read when it is) and those of ``beside``."""

    def __init__(self, images: Sequence[Place], paths: Sequence[str], beside: Any) -> None:
        import pyarrow as pa

        self._images, self._paths, self._beside = images, paths, InMemory(beside)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        self.schema = pa.schema([pa.field(IMAGE, kind), *beside.schema])
        self.rows = len(images)

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """Files are opened only if the images are asked for, some at a time."""
        step = _AT_ONCE if IMAGE in columns else max(self.rows, 1)
        stop = self.rows if stop is None else stop
        for first in range(start, stop, step):
            yield from self.take(columns, np.arange(first, min(first + step, stop))).combine_chunks().to_batches()

    def take(self, columns: Sequence[str], indices: NDArray[np.int64]) -> Any:
        """Only these files are opened."""
        import pyarrow as pa

        others = [name for name in columns if name != IMAGE]
        made = dict(zip(others, self._beside.take(others, indices).columns, strict=True))
        if IMAGE in columns:
            with ThreadPoolExecutor(4) as pool:
                encoded = list(pool.map(lambda row: self._images[row].read(), indices.tolist()))
            rows = [
                {"bytes": raw, "path": self._paths[row]} for raw, row in zip(encoded, indices.tolist(), strict=True)
            ]
            made[IMAGE] = pa.array(rows, self.schema.field(IMAGE).type)
        return pa.table({name: made[name] for name in columns}, schema=self.select(columns))


def read_image_folder(folder: Place, files: Sequence[Place], metadata: Mapping[str, Reader]) -> ImageFolder:
    """The images of a folder.

    Parameters
    ----------
    folder : Place
    files : sequence of Place
        All files in it.
    metadata : mapping of path to Reader
        What its ``metadata.*`` files hold, by their path in the folder; if there is none, the folders are the classes.

    Raises
    ------
    InvalidData
        If images are named that are not there, or the folders leave doubt.
    """
    import pyarrow as pa

    below = {place.path[len(folder.path.rstrip("/")) + 1 :]: place for place in files}
    images = {path: place for path, place in below.items() if path.lower().endswith(SUFFIXES)}
    if not metadata:
        classes = [PurePosixPath(path).parent.name for path in images]
        if all(classes):
            beside = pa.table({LABEL: classes})
        elif any(classes):
            loose = next(path for path in images if "/" not in path)
            raise InvalidData(
                f"{folder.name}: {loose} lies beside the folders of the classes; move it into one of them"
            )
        else:
            beside = pa.table({"path": list(images)})
        return ImageFolder(list(images.values()), list(images), beside)
    tables, paths = [], list[str]()
    for where, reader in metadata.items():
        table = pa.Table.from_batches(reader.read(reader.schema.names), reader.schema)
        if FILE_NAME not in table.column_names:
            raise InvalidData(
                f"{folder.name}/{where} has no column {FILE_NAME!r}; it has: {', '.join(table.column_names)}"
            )
        if IMAGE in table.column_names:
            raise InvalidData(f"{folder.name}/{where} has a column {IMAGE!r}, which is where the images go; rename it")
        prefix = PurePosixPath(where).parent
        paths += [(prefix / str(name)).as_posix() for name in table.column(FILE_NAME).to_pylist()]
        tables.append(table.drop_columns([FILE_NAME]))
    if absent := [path for path in paths if path not in images]:
        listed = ", ".join(absent[:10]) + (f" and {len(absent) - 10:,} more" if len(absent) > 10 else "")
        raise InvalidData(
            f"{folder.name}: {len(absent):,} of the {len(paths):,} images that its metadata names are absent: {listed}"
        )
    beside = pa.concat_tables(tables, promote_options="permissive").append_column("path", pa.array(paths))
    return ImageFolder([images[path] for path in paths], paths, beside)
