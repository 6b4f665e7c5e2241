"""Bundle files by their SHA-256: in a folder, or in whatever fsspec reaches."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from fairway.bundle.format import file_digest
from fairway.bundle.staging import publish_file
from fairway.core.errors import FairwayError, InvalidBundle, InvalidConfig, RegistryUnavailable
from fairway.core.manifest import FileEntry
from fairway.registry.errors import disk_failed, masked, scrubbed


class Blobs(Protocol):
    """Where files are kept by content. Putting one twice keeps one. Nothing is ever removed."""

    where: str

    def put(self, source: Path, entry: FileEntry) -> None:
        """Keep a file. Afterwards it is there whole, or an error was raised."""
        ...

    def open(self, entry: FileEntry) -> AbstractContextManager[BinaryIO]:
        """A stream of a kept file. The reader checks its digest."""
        ...


def open_blobs(url: str) -> Blobs:
    """The store at ``url``: a path or ``file://`` is a folder, anything else goes to fsspec.

    Raises
    ------
    InvalidConfig
        If fsspec knows no such protocol, or its package is not installed.
    """
    if url.startswith("file://"):
        return FolderBlobs(Path(url.removeprefix("file://")))
    return RemoteBlobs(url) if "://" in url else FolderBlobs(Path(url))


class FolderBlobs:
    """Blobs in a local folder, written atomically and durably."""

    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root

    def put(self, source: Path, entry: FileEntry) -> None:
        """Keep a file; one that is there but damaged is replaced."""
        target = self._root / _key(entry)
        try:
            if target.is_file() and target.stat().st_size == entry.size and file_digest(target) == entry.sha256:
                return
            with source.open("rb") as stream, publish_file(target) as out:
                shutil.copyfileobj(stream, out)
        except OSError as error:
            raise disk_failed(f"the blobs in {self.where}", error) from None

    @contextmanager
    def open(self, entry: FileEntry) -> Iterator[BinaryIO]:
        """A stream of the file."""
        try:
            stream = (self._root / _key(entry)).open("rb")
        except FileNotFoundError:
            raise _missing(entry, self.where) from None
        except OSError as error:
            raise disk_failed(f"the blobs in {self.where}", error) from None
        with stream:
            yield stream


class RemoteBlobs:
    """Blobs in any fsspec file system. Credentials come from its own environment variables and files."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.where = masked(url)
        self._url = url
        with self._guarded():
            try:
                self._fs, self._root = fsspec.core.url_to_fs(url)
            except (ImportError, ValueError) as error:
                detail = scrubbed(str(error), url)
                raise InvalidConfig(f"registry.blobs = {self.where!r} cannot be used: {detail}") from None

    def put(self, source: Path, entry: FileEntry) -> None:
        """Keep a file, unless it is there as it was. Object stores show an object only once it is complete.

        What was found whole once is read again only if the store says that it was written since.
        """
        path = f"{self._root}/{_key(entry)}"
        with self._guarded():
            if self._fs.exists(path) and self._fs.info(path)["size"] == entry.size:
                if self._is_as_noted(path, entry):
                    return
                if self._sha256(path) == entry.sha256:
                    self._note(path, entry)
                    return
            if not getattr(self._fs, "async_impl", False):  # object stores have no folders; asking would make a bucket
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(source), path)
            self._fs.invalidate_cache()
            if (size := self._fs.info(path)["size"]) != entry.size:
                raise RegistryUnavailable(f"the blobs in {self.where} kept {size:,} bytes of {entry.size:,}; try again")
            self._note(path, entry)

    def _note(self, path: str, entry: FileEntry) -> None:
        """Note that the blob is whole as it lies there now."""
        self._fs.pipe_file(self._noted(entry), self._fs.ukey(path).encode())

    def _is_as_noted(self, path: str, entry: FileEntry) -> bool:
        try:
            return bool(self._fs.cat_file(self._noted(entry)) == self._fs.ukey(path).encode())
        except FileNotFoundError:
            return False

    def _noted(self, entry: FileEntry) -> str:
        return f"{self._root}/{_key(entry)}.whole"

    def _sha256(self, path: str) -> str:
        with self._fs.open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @contextmanager
    def open(self, entry: FileEntry) -> Iterator[BinaryIO]:
        """A stream of the file."""
        with self._guarded():
            try:
                stream: Any = self._fs.open(f"{self._root}/{_key(entry)}", "rb")
            except FileNotFoundError:
                raise _missing(entry, self.where) from None
        with stream:
            yield cast(BinaryIO, _Reader(stream, self._guarded))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except FairwayError:
            raise
        except Exception as error:  # noqa: BLE001 - every file system has exceptions of its own
            detail = scrubbed((str(error) or type(error).__name__).splitlines()[0], self._url)
            raise RegistryUnavailable(
                f"the blobs in {self.where} cannot be used ({detail}); check the address, the network and the credentials"
            ) from None


class _Reader:
    """Reads under a guard, so that a reader's own failures are not taken for the store's."""

    def __init__(self, stream: Any, guarded: Callable[[], AbstractContextManager[None]]) -> None:
        self._stream = stream
        self._guarded = guarded

    def read(self, size: int = -1) -> bytes:
        with self._guarded():
            return bytes(self._stream.read(size))


def _key(entry: FileEntry) -> str:
    return f"sha256/{entry.sha256[:2]}/{entry.sha256}"


def _missing(entry: FileEntry, where: str) -> InvalidBundle:
    return InvalidBundle(
        f"there is no blob {entry.sha256[:12]}… in {where}; check registry.blobs, or put it there again"
    )
