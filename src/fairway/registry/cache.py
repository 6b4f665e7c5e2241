"""Verified copies of registered bundles on this machine, by digest. Safe with several processes at once."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairway.bundle.format import SIGNATURE, Bundle, copy_bundle, read_bundle
from fairway.bundle.staging import exclusive, publish_file
from fairway.core.errors import InvalidBundle
from fairway.registry.blobs import Blobs
from fairway.registry.errors import disk_failed
from fairway.registry.records import Version


def fetch_bundle(version: Version, signature: bytes, blobs: Blobs, cache: Path) -> Bundle:
    """The version's bundle in ``cache``: verified if it is there, copied and verified if not, replaced if damaged.

    Raises
    ------
    InvalidBundle
        If the blob store lacks one of its files or holds it altered.
    RegistryUnavailable
        If the blob store or the cache cannot be used.
    """
    target = cache.absolute() / version.digest.replace(":", "-")
    try:
        with exclusive(target.with_name(f".{target.name}.lock")):
            bundle = _cached(target, version)
            if bundle is None:
                return _copied(target, version, signature, blobs)
            if signature and bundle.signature() != signature:
                with publish_file(target / SIGNATURE, scratch=target.parent) as out:
                    out.write(signature)
            return bundle
    except OSError as error:
        raise disk_failed(f"the cache of bundles in {cache}", error) from None


def _copied(target: Path, version: Version, signature: bytes, blobs: Blobs) -> Bundle:
    try:
        return copy_bundle(target, version.manifest, lambda name: blobs.open(version.manifest.files[name]), signature)
    except InvalidBundle as error:
        raise InvalidBundle(
            f"the blobs of {version.ref} in {blobs.where} are damaged ({error}); register the bundle again to repair them"
        ) from None


def _cached(target: Path, version: Version) -> Bundle | None:
    if not target.is_dir():
        target.unlink(missing_ok=True)
        return None
    try:
        bundle = read_bundle(target)
    except InvalidBundle:
        bundle = None
    if bundle is None or bundle.digest != version.digest:
        shutil.rmtree(target)
        return None
    return bundle
