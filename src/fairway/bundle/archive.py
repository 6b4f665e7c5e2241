"""A bundle as one tar file: the same bytes for the same bundle, and nothing unsafe when read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fairway.bundle.format import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MAX_SIGNATURE_BYTES,
    SIGNATURE,
    Bundle,
    copy_bundle,
    decode_manifest,
    read_bundle,
)
from fairway.bundle.staging import publish_file
from fairway.core.errors import InvalidBundle


def write_archive(bundle: Bundle, path: Path) -> Path:
    """Write a bundle, and its signature if it has one, as an uncompressed tar: all of it, or nothing.

    The same bundle always gives the same bytes: sorted names, no times, no owners.

    Parameters
    ----------
    bundle : Bundle
        It is verified first.
    path : Path
        A file there is replaced.

    Raises
    ------
    InvalidBundle
        If the bundle was altered.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    bundle.verify()
    heads = {MANIFEST: bundle.manifest.encode(), SIGNATURE: bundle.signature()}
    with publish_file(path) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in heads.items():
            if content:
                tar.addfile(_member(name, len(content)), io.BytesIO(content))
        for name, entry in sorted(bundle.manifest.files.items()):
            with bundle.file(name).open("rb") as source:
                tar.addfile(_member(name, entry.size), source)
    return path


def read_archive(path: Path, destination: Path) -> Bundle:
    """Unpack a bundle from its tar: all of it, checked against its digests, or nothing.

    Only plain files that the manifest names are written; a link, a device, a name twice or a name outside the
    destination is refused.

    Parameters
    ----------
    path : Path
        As :func:`write_archive` writes it; not compressed.
    destination : Path
        As for :func:`fairway.bundle.format.write_bundle`.

    Raises
    ------
    InvalidBundle
        If the file is no bundle, was truncated or altered, or holds anything unsafe.
    NewerFormat
        If a newer Fairway packed it.
    OSError
        If the disk is full or not writable; nothing is left behind.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = _members(tar, path)
            manifest = decode_manifest(
                _small(tar, members, MANIFEST, MAX_MANIFEST_BYTES, path), f"{MANIFEST} in {path}"
            )
            signature = b""
            if SIGNATURE in members:
                signature = _small(tar, members, SIGNATURE, MAX_SIGNATURE_BYTES, path)
            if wrong := sorted(set(members) - {MANIFEST, SIGNATURE} ^ set(manifest.files)):
                raise InvalidBundle(f"{path} and its manifest differ over {wrong[0]!r}; get the archive again")

            @contextmanager
            def open_member(name: str) -> Iterator[BinaryIO]:
                with _open(tar, members[name]) as source:
                    yield source

            copied = copy_bundle(destination, manifest, open_member, signature)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InvalidBundle(f"{path} is not a bundle's archive, or is truncated ({error}); get it again") from None
    except (FileNotFoundError, IsADirectoryError) as error:
        if error.filename != str(path):
            raise
        raise InvalidBundle(f"there is no archive at {path}; check the path") from None
    return read_bundle(copied.path, verify=False)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _members(tar: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise InvalidBundle(f"{path} holds {member.name!r}, which is not a plain file; do not use this archive")
        if member.name in members:
            raise InvalidBundle(f"{path} holds {member.name!r} twice; do not use this archive")
        members[member.name] = member
    return members


def _small(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], name: str, limit: int, path: Path) -> bytes:
    if name not in members:
        raise InvalidBundle(f"{path} is not a bundle's archive: it has no {name}")
    if members[name].size > limit:
        raise InvalidBundle(f"{name} in {path} is larger than {limit:,} bytes; do not use this archive")
    with _open(tar, members[name]) as source:
        return source.read()


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, tar.extractfile(member))
