"""A model's answers to many batches of rows, wherever they are computed."""

from __future__ import annotations

import getpass
import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairway.bundle.format import Bundle, copy_bundle, decode_manifest, read_bundle
from fairway.core.errors import InvalidBundle
from fairway.core.mapping import Mapper
from fairway.core.tensors import Tensor, Tensors
from fairway.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PART_BYTES, _PART_FEEDS = 8 * 2**20, 4
"""Input of one part, at most, unless a single batch has more: text is small and takes long, images the other way round."""


def answers(
    model: Model, feeds: Iterable[Tensors], outputs: Sequence[str], mapper: Mapper
) -> Iterator[dict[str, Tensor]]:
    """What ``model`` gives as ``outputs`` for each of ``feeds``, in their order; few of them are held at a time.

    The batches stay as they are whatever the mapper, since an engine may round a row differently in a larger one.
    """
    for part in mapper.map(Asked(model, outputs), _parts(feeds)):
        yield from part


class Asked:
    """A model as a function of batches. Where it is sent to another process, that opens the bundle for itself."""

    def __init__(self, model: Model, outputs: Sequence[str]) -> None:
        self._model, self._outputs = model, tuple(outputs)

    def __call__(self, feeds: Sequence[Tensors]) -> list[dict[str, Tensor]]:
        """The answers to some batches."""
        return [self._answer(feed) for feed in feeds]

    def _answer(self, feed: Tensors) -> dict[str, Tensor]:
        given = self._model.infer(feed)
        if missing := [name for name in self._outputs if name not in given]:
            raise InvalidBundle(f"{self._model.manifest.name} has no output {missing[0]!r}; it has: {', '.join(given)}")
        return {name: np.asarray(given[name]) for name in self._outputs}

    def __reduce__(self) -> tuple[Any, ...]:
        bundle = self._model.bundle
        files = {
            name: np.asarray(np.memmap(bundle.file(name), np.uint8, "r"))  # sent without a copy in memory
            for name, entry in bundle.manifest.files.items()
            if entry.size
        }
        return _sent, (str(bundle.path), bundle.manifest.encode(), files, self._outputs)


def _parts(feeds: Iterable[Tensors]) -> Iterator[list[Tensors]]:
    held: list[Tensors] = []
    size = 0
    for feed in feeds:
        more = sum(array.nbytes for array in feed.values())
        if held and (size + more > _PART_BYTES or len(held) == _PART_FEEDS):
            yield held
            held, size = [], 0
        held.append(feed)
        size += more
    if held:
        yield held


def _sent(path: str, manifest: bytes, files: Mapping[str, NDArray[np.uint8]], outputs: Sequence[str]) -> Asked:
    """In another process: the bundle at the same path, if it is the same; else written to this machine's folder of them."""
    described = decode_manifest(manifest, path)
    return Asked(Model(_same(Path(path), described.digest) or _written(manifest, files)), outputs)


def _same(path: Path, digest: str) -> Bundle | None:
    with suppress(InvalidBundle):
        found = read_bundle(path)
        return found if found.digest == digest else None
    return None


def _written(manifest: bytes, files: Mapping[str, NDArray[np.uint8]]) -> Bundle:
    described = decode_manifest(manifest, "a bundle that was sent")
    folder = Path(tempfile.gettempdir()) / f"fairway-bundles-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / described.digest.replace(":", "-")
    found = _same(place, described.digest)
    return found or copy_bundle(
        place, described, lambda name: io.BufferedReader(_Opened(files.get(name, np.empty(0, np.uint8))))
    )


class _Opened(io.RawIOBase):
    """The bytes of an array as a file, without a copy."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._left = content.data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count
