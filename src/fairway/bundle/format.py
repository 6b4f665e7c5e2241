"""Write a bundle atomically; read it back only if every byte is as it was written."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias

import msgspec

from fairway.bundle.staging import copy, publish, staging
from fairway.core.errors import InvalidBundle, NewerFormat
from fairway.core.manifest import FORMAT, NAME, FileEntry, Manifest

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_SIGNATURE_BYTES = 16 * 2**20

Content: TypeAlias = Path | bytes
Opener: TypeAlias = Callable[[str], AbstractContextManager[BinaryIO]]


class Bundle:
    """A packed model on disk. Make one with :func:`write_bundle`, open one with :func:`read_bundle`.

    Attributes
    ----------
    path : Path
        The bundle's directory.
    manifest : Manifest
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def digest(self) -> str:
        """The bundle's identity, ``sha256:…``."""
        return self.manifest.digest

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, the manifest excepted."""
        return sum(entry.size for entry in self.manifest.files.values())

    def file(self, name: str) -> Path:
        """The path of one of the bundle's files, or :class:`InvalidBundle` if the manifest does not list it."""
        if name not in self.manifest.files:
            raise InvalidBundle(f"{self.path} has no file {name!r}; it has: {', '.join(sorted(self.manifest.files))}")
        return self.path / name

    def signature(self) -> bytes:
        """Content of the signature file; empty if the bundle is not signed. It is not verified here."""
        path = self.path / SIGNATURE
        try:
            if path.stat().st_size > MAX_SIGNATURE_BYTES:
                raise InvalidBundle(f"{path} is larger than {MAX_SIGNATURE_BYTES:,} bytes: not a signature")
            return path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InvalidBundle(f"{path} cannot be read ({error}); check its permissions and the disk") from None

    def verify(self) -> None:
        """Read every file and compare its digest. Raises :class:`InvalidBundle` naming the first file that differs."""
        try:
            self._verify()
        except OSError as error:
            raise InvalidBundle(f"{self.path} cannot be read ({error}); check its permissions and the disk") from None

    def _verify(self) -> None:
        present = {
            p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if not p.is_dir() or p.is_symlink()
        } - {MANIFEST, SIGNATURE}
        if extra := sorted(present - set(self.manifest.files)):
            raise InvalidBundle(f"{self.path} holds {extra[0]!r}, which its manifest does not list; pack it again")
        for name, entry in self.manifest.files.items():
            path = self.path / name
            if path.is_symlink() or not path.is_file():
                raise InvalidBundle(f"{self.path} lacks {name!r}; copy the bundle again or pack it again")
            if path.stat().st_size != entry.size:
                raise InvalidBundle(
                    f"{name!r} in {self.path} has {path.stat().st_size:,} bytes instead of {entry.size:,}: truncated or "
                    "altered; copy the bundle again"
                )
            if file_digest(path) != entry.sha256:
                raise InvalidBundle(f"{name!r} in {self.path} was altered: its SHA-256 differs; copy the bundle again")


def write_bundle(destination: Path, manifest: Manifest, files: Mapping[str, Content]) -> Bundle:
    """Write a bundle at ``destination``: all of it, or nothing.

    The files are copied and hashed beside the destination, made durable, and appear under its name by one rename.

    Parameters
    ----------
    destination : Path
        Must not exist, or be empty, or be a bundle with the same digest (which is then left as it is).
    manifest : Manifest
        Its ``files`` are replaced by what was written.
    files : mapping of relative POSIX path to a file's path or its bytes

    Raises
    ------
    InvalidBundle
        If the destination holds something else, or a name is not safe.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    _check_names(files, manifest.name)
    destination = destination.absolute()
    with staging(destination) as staged:
        entries = {name: _place(staged / name, content) for name, content in sorted(files.items())}
        written = msgspec.structs.replace(manifest, files=entries, format=FORMAT)
        _place(staged / MANIFEST, written.encode())
        _publish(staged, destination, written.digest)
    return Bundle(destination, written)


def copy_bundle(destination: Path, manifest: Manifest, open_file: Opener, signature: bytes = b"") -> Bundle:
    """Write the bundle that ``manifest`` describes, reading each file through ``open_file(name)``: all of it, or nothing.

    Every file is checked against the manifest while it is copied, so what appears is what was packed.

    Parameters
    ----------
    destination : Path
        Must not exist, or be empty, or be the same bundle.
    manifest : Manifest
    open_file : callable
        Gives a readable binary stream, as a context manager, for a name in ``manifest.files``.
    signature : bytes
        Content of the signature file; empty if the bundle is not signed.

    Raises
    ------
    InvalidBundle
        If a file is not what the manifest says, or the destination holds something else.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    _check_names(manifest.files, manifest.name)
    destination = destination.absolute()
    with staging(destination) as staged:
        for name, entry in sorted(manifest.files.items()):
            with open_file(name) as source:
                found = _write(staged / name, source, limit=entry.size)
            if found != entry:
                raise InvalidBundle(
                    f"{name!r} of {manifest.name!r} is truncated or altered: its size or SHA-256 is not the manifest's; "
                    "get the bundle again"
                )
        _place(staged / MANIFEST, manifest.encode())
        if signature:
            _place(staged / SIGNATURE, signature)
        _publish(staged, destination, manifest.digest)
    return Bundle(destination, manifest)


def read_bundle(path: Path | str, *, verify: bool = True) -> Bundle:
    """Open a bundle.

    Parameters
    ----------
    path : Path or str
    verify : bool, default True
        Read and hash every file. Switch it off only right after a verified read or a write.

    Raises
    ------
    InvalidBundle
        If there is no bundle, or it was truncated or altered.
    NewerFormat
        If a newer Fairway wrote it.
    """
    directory = Path(path)
    source = directory / MANIFEST
    try:
        if not source.is_file():  # a pipe would never end
            raise FileNotFoundError
        if source.stat().st_size > MAX_MANIFEST_BYTES:
            raise InvalidBundle(f"{source} is larger than {MAX_MANIFEST_BYTES:,} bytes: not a manifest")
        raw = source.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidBundle(f"{directory} is not a bundle: it has no {MANIFEST}; make one with: fairway pack") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte in it
        raise InvalidBundle(f"{source} cannot be read ({error}); check its permissions and the disk") from None
    bundle = Bundle(directory, decode_manifest(raw, str(source)))
    if verify:
        bundle.verify()
    return bundle


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Decode a manifest's bytes, ``where`` being named in errors. Raises :class:`InvalidBundle` or :class:`NewerFormat`."""
    try:
        version = msgspec.json.decode(raw, type=_Versioned).format
        if version < 1:
            raise InvalidBundle(f"{where} says that it is of format {version}, which never was; pack it again")
        if version > FORMAT:
            raise NewerFormat(
                f"{where} is of format {version}, and this Fairway reads up to {FORMAT}; upgrade: pip install -U fairway"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise InvalidBundle(f"{where} is damaged ({error}); copy the bundle again or pack it again") from None
    except (UnicodeDecodeError, RecursionError):
        raise InvalidBundle(
            f"{where} is damaged (not a manifest's JSON); copy the bundle again or pack it again"
        ) from None
    _check_names(manifest.files, manifest.name)
    return manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits, in constant memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Versioned(msgspec.Struct):
    format: int


def _check_names(names: Iterable[str], model: str) -> None:
    """Names that are safe to join to a directory, on every file system, and cannot get in each other's way."""
    if not NAME.fullmatch(model):
        raise InvalidBundle(f"{model!r} is not a model name; use letters, digits, '.', '_' and '-' (128 at most)")
    known = set(names)
    for name in known:
        path = PurePosixPath(name)
        bad = path.is_absolute() or ".." in path.parts or path.as_posix() != name
        if bad or "\\" in name or not name.isprintable() or any(len(os.fsencode(part)) > 255 for part in path.parts):
            raise InvalidBundle(f"{name!r} is not a safe file name for a bundle")
        if path.parts[:1] in ((), (MANIFEST,), (SIGNATURE,)):
            raise InvalidBundle(f"{name!r} is reserved in a bundle")
        if clash := next((str(parent) for parent in path.parents if str(parent) in known), None):
            raise InvalidBundle(f"{clash!r} cannot be both a file and the folder of {name!r}")


def _place(target: Path, content: Content) -> FileEntry:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
        return _write(target, source)


def _write(target: Path, source: BinaryIO, limit: int | None = None) -> FileEntry:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        digest, size = copy(source, out, limit)
        out.flush()
        os.fsync(out.fileno())
    return FileEntry(digest, size)


def _publish(staged: Path, destination: Path, digest: str) -> None:
    try:
        publish(staged, destination)
    except OSError:
        if not os.path.lexists(destination):
            raise
        if not (destination / MANIFEST).is_file() or read_bundle(destination).digest != digest:
            raise InvalidBundle(
                f"{destination} exists and holds something else; remove it or choose another name"
            ) from None
