"""Where data lies: a file or folder of this machine, or what an fsspec URL names."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from fairway.core.errors import InvalidData
from fairway.core.extras import require

_WEB = ("http://", "https://")
_PACKED = (".gz", ".bz2", ".zst", ".lz4")
_BLOCK = 2**20
_CONFIDENTIAL = r"(\w*(?:password|passwd|pwd|secret|token))"


@dataclass(frozen=True)
class Place:
    """A file or folder.

    Attributes
    ----------
    filesystem : pyarrow.fs.FileSystem
    path : str
        On that filesystem.
    name : str
        For messages.
    local : bool
        Whether it is on this machine, so that it can be mapped into memory.
    """

    filesystem: Any
    path: str
    name: str
    local: bool = True

    @property
    def suffix(self) -> str:
        """What the name says about the form, in lower case, without that of a compression: ``.csv`` of ``a.csv.gz``."""
        path = PurePosixPath(_without_query(self.path.lower()))
        return PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix

    @property
    def packed(self) -> bool:
        """Whether the whole file is compressed."""
        return _without_query(self.path.lower()).endswith(_PACKED)

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return bool(self._info().type.name != "NotFound")

    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return bool(self._info().type.name == "Directory")

    def size(self) -> int:
        """Bytes of a file."""
        return int(self._info().size or 0)

    def stamp(self) -> tuple[int, int]:
        """Size and time of change of a file: if it is the same, the content is taken to be, too."""
        info = self._info()
        return int(info.size or 0), int(info.mtime_ns or 0)

    def _info(self) -> Any:
        return self.filesystem.get_file_info(self.path)

    def open(self) -> Any:
        """The file at random access, mapped into memory if it is on this machine."""
        import pyarrow as pa

        return pa.memory_map(self.path) if self.local else self.filesystem.open_input_file(self.path)

    def file(self) -> Any:
        """The file at random access, without mapping it."""
        return self.filesystem.open_input_file(self.path)

    def stream(self) -> Any:
        """The file from its beginning, decompressed if its name says that it is compressed."""
        return self.filesystem.open_input_stream(self.path, compression="detect", buffer_size=_BLOCK)

    def read(self) -> bytes:
        """The whole of a small file."""
        with self.file() as stream:
            return bytes(stream.read())

    def sha256(self) -> str:
        """64 hex digits of the file's content; while a local file's size and time of change stay the same, it is read once."""
        return (
            _local_sha256(str(Path(self.path).absolute()), *self.stamp())
            if self.local
            else _sha256(self.filesystem, self.path)
        )

    def child(self, name: str) -> Place:
        """A file or folder in this folder."""
        return Place(self.filesystem, f"{self.path.rstrip('/')}/{name}", f"{self.name.rstrip('/')}/{name}", self.local)

    def files(self) -> Iterator[Place]:
        """Every file below this folder, by path; hidden ones (``.`` or ``_``) are left out."""
        from pyarrow.fs import FileSelector

        root = self.path.rstrip("/")
        found = self.filesystem.get_file_info(FileSelector(root, recursive=True))
        names = sorted(info.path[len(root) + 1 :] for info in found if info.type.name == "File")
        for name in names:
            if not any(part.startswith((".", "_")) for part in name.split("/")):
                yield self.child(name)


def _sha256(filesystem: Any, path: str) -> str:
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path, compression=None) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=2**16)
def _local_sha256(path: str, _size: int, _changed: int) -> str:
    from pyarrow.fs import LocalFileSystem

    return _sha256(LocalFileSystem(), path)


@dataclass(frozen=True)
class Found:
    """What a path, a pattern or a URL names.

    Attributes
    ----------
    places : list of Place
        One; or every file that matches a pattern, by path.
    root : str
        The folder that a pattern's matches lie in.
    split : str
        What stood behind a ``#``.
    """

    places: list[Place]
    root: str = ""
    split: str = ""


def without_secrets(text: str) -> str:
    """A URL or query to show: without passwords, tokens and signatures.

    Examples
    --------
    >>> without_secrets("https://me:s3cret@host/a.csv?sig=abc&part=1")
    'https://***@host/a.csv?***'
    >>> without_secrets("sql:SELECT * FROM postgres_scan('host=db password=s3cret', 'public', 't')")
    "sql:SELECT * FROM postgres_scan('host=db password=***', 'public', 't')"
    >>> without_secrets("CREATE SECRET (TYPE s3, KEY_ID 'me', SECRET 's3 cret')")
    "CREATE SECRET (TYPE s3, KEY_ID 'me', SECRET '***')"
    """
    text = re.sub(r"://[^/@\s']+@", "://***@", text)
    text = re.sub(rf"(?i)\b{_CONFIDENTIAL}(\s*=\s*|\s+)('+)[^']*'", r"\1\2\3***'", text)
    text = re.sub(rf"(?i)\b{_CONFIDENTIAL}\s*=\s*[^\s'&;)]+", r"\1=***", text)
    return re.sub(r"(://[^\s'?]*)\?[^\s'#]*=[^\s'#]*", r"\1?***", text)


def find_places(given: str, root: Path) -> Found:
    """Find what is named, relative to ``root``.

    Raises
    ------
    InvalidData
        If nothing matches a pattern, or the URL cannot be reached.
    """
    require("pyarrow", extra="evaluate")
    if "://" in given:
        return _remote(given)
    from pyarrow.fs import LocalFileSystem

    split = ""
    if "#" in given and not (root / given).exists():
        given, _, split = given.rpartition("#")
    path = str(root / given)
    filesystem = LocalFileSystem()
    if not glob.has_magic(given) or Path(path).exists():
        return Found([Place(filesystem, path, path)], split=split)
    pattern = path if root == Path() else os.path.join(glob.escape(str(root)), given)  # noqa: PTH118 (no pattern is a path)
    found = [each for each in sorted(glob.glob(pattern, recursive=True)) if Path(each).is_file()]  # noqa: PTH207 (** and absolute alike)
    if not found:
        raise InvalidData(f"no file matches {path}; check the pattern, and the folder that it is relative to")
    return Found([Place(filesystem, each, each) for each in found], str(root / _plain_root(given)))


def _remote(given: str) -> Found:
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    url, _, split = given.partition("#")
    try:
        remote, path = fsspec.core.url_to_fs(url)
        filesystem = PyFileSystem(FSSpecHandler(remote))
        if not glob.has_magic(_without_query(path)):
            remote.info(path)  # a store that refuses says why
            return Found([Place(filesystem, path, without_secrets(url), local=False)], split=split)
        found = sorted(remote.glob(path))
    except ImportError as error:
        raise InvalidData(f"{without_secrets(given)} needs a package that is not installed: {error}") from None
    except Exception as error:  # noqa: BLE001 (each store raises its own)
        cause = error.__cause__ or error  # a web server that refuses, or is not there, is "not found" to fsspec
        if isinstance(error, FileNotFoundError) and (cause is error or getattr(cause, "status", 0) == 404):
            raise InvalidData(f"{without_secrets(given)} does not exist") from None
        reason = without_secrets(f"{type(cause).__name__}: {cause}")
        raise InvalidData(f"{without_secrets(given)} cannot be reached: {reason}") from None
    if not found:
        raise InvalidData(f"no file matches {without_secrets(given)}; check the pattern")
    names = [each if "://" in each else f"{given.partition('://')[0]}://{each}" for each in found]
    places = [
        Place(filesystem, each, without_secrets(name), local=False) for each, name in zip(found, names, strict=True)
    ]
    return Found(places, _plain_root(path))


def _without_query(path: str) -> str:
    """A web address as far as it names a file: what follows its ``?`` (a signature, say) is no pattern and no suffix."""
    return path.partition("?")[0] if path.lower().startswith(_WEB) else path


def _plain_root(pattern: str) -> str:
    parts = pattern.split("/")
    return "/".join(parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
