"""Verified copies of registered bundles on this machine, by digest. Safe with several processes at once."""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path

from fairway.bundle.format import SIGNATURE, Bundle, copy_bundle, read_bundle
from fairway.bundle.staging import exclusive, publish_file, still_used
from fairway.core.errors import InvalidBundle
from fairway.registry.blobs import Blobs
from fairway.registry.errors import disk_failed
from fairway.registry.records import Version

log = logging.getLogger(__name__)

_KEPT_S = 86_400.0


def fetch_bundle(
    version: Version, signature: bytes, blobs: Blobs, cache: Path, *, limit_bytes: float = math.inf
) -> Bundle:
    """The version's bundle in ``cache``: verified if it is there, copied and verified if not, replaced if damaged.

    Where a copy makes the cache larger than ``limit_bytes``, the longest unused bundles go, but none that was used within the
    last day: somebody may be about to load it. Servers say again and again what they use, by the directory's time.

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
            if bundle is not None:
                still_used(target)
                if signature and bundle.signature() != signature:
                    with publish_file(target / SIGNATURE, scratch=target.parent) as out:
                        out.write(signature)
                return bundle
            bundle = _copied(target, version, signature, blobs)
        _make_room(target.parent, limit_bytes)  # no lock is held: else two that make room could wait for each other
        return bundle
    except OSError as error:
        raise disk_failed(f"the cache of bundles in {cache}", error) from None


def _make_room(cache: Path, limit_bytes: float) -> None:
    """Whoever has loaded one that goes keeps what it has mapped."""
    bundles = sorted((path for path in cache.glob("sha256-*") if path.is_dir()), key=_unused_s, reverse=True)
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in bundles}
    for path in bundles:
        if sum(sizes.values()) <= limit_bytes:
            break
        with exclusive(path.with_name(f".{path.name}.lock")):
            if _unused_s(path) < _KEPT_S:
                break
            shutil.rmtree(path, ignore_errors=True)
        log.info("bundle_removed", extra={"bundle": path.name, "reason": "the cache of fetched bundles is full"})
        del sizes[path]


def _unused_s(path: Path) -> float:
    """0 for one that another process has removed just now."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


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
