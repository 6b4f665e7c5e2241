"""Write a bundle atomically; read it back only if every byte is as it was written."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from fairway.core.errors import InvalidBundle, NewerFormat
from fairway.core.manifest import FORMAT, FileEntry, Manifest

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
MAX_MANIFEST_BYTES = 16 * 2**20
_CHUNK = 2**20


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

    def verify(self) -> None:
        """Read every file and compare its digest. Raises :class:`InvalidBundle` naming the first file that differs."""
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


def write_bundle(destination: Path, manifest: Manifest, files: Mapping[str, Path | bytes]) -> Bundle:
    """Write a bundle at ``destination``: all of it, or nothing.

    The files are copied and hashed beside the destination, made durable, and appear under its name by one rename.

    Parameters
    ----------
    destination : Path
        Must not exist, or be a bundle with the same digest (which is then left as it is).
    manifest : Manifest
        Its ``files`` are replaced by what was written.
    files : mapping of relative POSIX path to a file's path or its bytes

    Raises
    ------
    InvalidBundle
        If the destination holds something else, or a file name is not safe.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        entries = {name: _place(staging, name, content) for name, content in sorted(files.items())}
        written = msgspec.structs.replace(manifest, files=entries, format=FORMAT)
        _place(staging, MANIFEST, written.encode())
        staging.chmod(0o755)
        _sync(staging)
        _publish(staging, destination, written)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Bundle(destination, written)


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
        if source.stat().st_size > MAX_MANIFEST_BYTES:
            raise InvalidBundle(f"{source} is larger than {MAX_MANIFEST_BYTES:,} bytes: not a manifest")
        raw = source.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidBundle(f"{directory} is not a bundle: it has no {MANIFEST}; make one with: fairway pack") from None
    bundle = Bundle(directory, decode_manifest(raw, str(source)))
    if verify:
        bundle.verify()
    return bundle


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Decode a manifest's bytes, ``where`` being named in errors. Raises :class:`InvalidBundle` or :class:`NewerFormat`."""
    try:
        version = msgspec.json.decode(raw, type=_Versioned).format
        if version > FORMAT:
            raise NewerFormat(
                f"{where} is of format {version}, and this Fairway reads up to {FORMAT}; upgrade: pip install -U fairway"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise InvalidBundle(f"{where} is damaged ({error}); copy the bundle again or pack it again") from None
    except UnicodeDecodeError:
        raise InvalidBundle(f"{where} is damaged (not UTF-8); copy the bundle again or pack it again") from None
    for name in manifest.files:
        _check_name(name)
    return manifest


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits, in constant memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Versioned(msgspec.Struct):
    format: int


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name or "\0" in name:
        raise InvalidBundle(f"{name!r} is not a safe file name for a bundle")
    if name in (MANIFEST, SIGNATURE, "."):
        raise InvalidBundle(f"{name!r} is reserved in a bundle")


def _place(staging: Path, name: str, content: Path | bytes) -> FileEntry:
    if name != MANIFEST:
        _check_name(name)
    target = staging / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as out:
        if isinstance(content, bytes):
            digest.update(content)
            out.write(content)
        else:
            with content.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
        size = out.tell()
        out.flush()
        os.fsync(out.fileno())
    return FileEntry(digest.hexdigest(), size)


def _publish(staging: Path, destination: Path, manifest: Manifest) -> None:
    try:
        staging.rename(destination)
    except OSError:
        if not destination.exists():
            raise
        if not (destination / MANIFEST).is_file() or read_bundle(destination).digest != manifest.digest:
            raise InvalidBundle(
                f"{destination} exists and holds something else; remove it or choose another name"
            ) from None
        shutil.rmtree(staging, ignore_errors=True)
    _sync(destination.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
