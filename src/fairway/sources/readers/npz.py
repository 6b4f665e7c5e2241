"""NumPy archives: one array per column, read from the archive piece by piece."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

import numpy as np

from fairway.core.errors import InvalidData
from fairway.core.tensors import Tensor
from fairway.sources.columns import from_numpy
from fairway.sources.readers.base import CHUNK_BYTES, CHUNK_ROWS, InMemory, Reader
from fairway.sources.readers.places import Place

_KEPT_BYTES = 64 * 2**20


def read_npz(place: Place) -> Reader:
    """Small archives, and those in Fortran's order, are held in memory; others are read piece by piece."""
    import pyarrow as pa

    heads = _heads(place)
    lengths = {name: shape[0] if shape else 0 for name, (shape, _, _) in heads.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise InvalidData(
            f"{place.name} holds arrays of different numbers of rows ({lengths}); every array needs one per row"
        )
    size = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype, _ in heads.values())
    if size > _KEPT_BYTES and not any(fortran for _, _, fortran in heads.values()):
        return Npz(place, {name: (shape, dtype) for name, (shape, dtype, _) in heads.items()})
    with place.file() as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return InMemory(pa.table({name: from_numpy(array) for name, array in arrays.items()}))


class Npz(Reader):
    """A large archive."""

    def __init__(self, place: Place, heads: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        import pyarrow as pa

        self._place, self._heads = place, heads
        self.rows = next(iter(heads.values()))[0][0]
        empty = {name: from_numpy(np.zeros((1, *shape[1:]), dtype)) for name, (shape, dtype) in heads.items()}
        self.schema = pa.table(empty).schema

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """All rows before ``start`` are read, too: the members may be compressed."""
        import pyarrow as pa

        stop = self.rows if stop is None else stop
        width = sum(int(np.prod(self._heads[name][0][1:])) * self._heads[name][1].itemsize for name in columns)
        step = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(width, 1)))
        with ExitStack() as stack:
            archive = zipfile.ZipFile(stack.enter_context(self._place.file()))
            members = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in columns}
            for member in members.values():
                _head(member)
            for first in range(0, stop, step):
                count = min(step, stop - first)
                arrays = {name: self._piece(name, member, count) for name, member in members.items()}
                if first + count > start:
                    skip = max(start - first, 0)
                    kept = {name: from_numpy(array[skip:]) for name, array in arrays.items()}
                    yield pa.RecordBatch.from_pydict(kept, self.select(columns))

    def _piece(self, name: str, member: IO[bytes], count: int) -> Tensor:
        shape, dtype = self._heads[name]
        size = count * int(np.prod(shape[1:])) * dtype.itemsize
        raw = member.read(size)
        if len(raw) != size:
            raise ValueError(f"array {name!r} ends before its last row")
        return np.frombuffer(raw, dtype).reshape(count, *shape[1:])


def _heads(place: Place) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], bool]]:
    found = {}
    with place.file() as file, zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                found[name.removesuffix(".npy")] = _head(member)
    return found


def _head(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return shape, dtype, fortran
