"""Copies of bundles whose weights are mapped, which nobody else alters: of one process, or of all on this machine."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from fairway.bundle.format import Bundle, copy_bundle
from fairway.bundle.holding import hold, put_away, remove
from fairway.bundle.samples import SAMPLES
from fairway.bundle.staging import exclusive, sweep
from fairway.core.errors import InvalidConfig

log = logging.getLogger(__name__)

_MAPPED_FROM_BYTES = 64 * 2**10


def maps_files(bundle: Bundle) -> bool:
    """Whether an engine may map files of this bundle into memory: weights that lie beside the graph."""
    manifest = bundle.manifest
    return any(
        entry.size > _MAPPED_FROM_BYTES
        for file, entry in manifest.files.items()
        if file not in (manifest.engine.file, SAMPLES)
    )


class PrivateBundle(Bundle):
    """A copy that nobody else can alter, gone from the disk once it is released; what was mapped stays mapped."""

    def __init__(self, bundle: Bundle, folder: tempfile.TemporaryDirectory[str]) -> None:
        super().__init__(bundle.path, bundle.manifest)
        self._folder = folder

    def release(self) -> None:
        """Remove the copy."""
        with suppress(OSError):
            self._folder.cleanup()


class SharedBundle(Bundle):
    """A copy that processes of this user share. It is gone from the disk when none of them has the bundle any more.

    Until then it stays: what is deleted while it is mapped takes its room all the same, and each process would make another.
    """

    def __init__(self, bundle: Bundle, descriptor: int) -> None:
        super().__init__(bundle.path, bundle.manifest)
        self.give_back = weakref.finalize(self, _give_back, bundle.path, descriptor)
        """Do without the copy: the model was not loaded, or is closed."""


def safe_copy(bundle: Bundle, *, shared: bool = False) -> Bundle:
    """A verified copy, which nobody else alters, of a bundle whose weights will be mapped.

    Whoever shortens a file that is mapped kills the process with SIGBUS at its next read, and ``cp`` over a bundle does
    just that.

    Parameters
    ----------
    bundle : Bundle
    shared : bool, default False
        Whether other processes serve the same bundle, and may use the same copy.

    Raises
    ------
    InvalidBundle
        If the bundle changes while it is copied.
    InvalidConfig
        If there is no room for the copy.
    """
    if shared:
        try:
            return _shared_copy(bundle)
        except OSError as error:
            log.warning("bundle_copy_not_shared", extra={"bundle": str(bundle.path), "reason": str(error)})
    return _private_copy(bundle)


def _private_copy(bundle: Bundle) -> Bundle:
    folder: tempfile.TemporaryDirectory[str] | None = None
    try:
        folder = tempfile.TemporaryDirectory(prefix="fairway-")
        return PrivateBundle(_copied(bundle, Path(folder.name) / "bundle"), folder)
    except OSError as error:
        if folder is not None:
            folder.cleanup()
        raise InvalidConfig(
            f"weights of {bundle.path} cannot be copied to where nobody alters them ({error}); make room, or set TMPDIR to a "
            "folder that has room"
        ) from None
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise


def _shared_copy(bundle: Bundle) -> Bundle:
    """Raises ``OSError`` where there can be none: no room, no locks, or another user's directory of that name."""
    root = Path(tempfile.gettempdir()) / f"fairway-copies-{os.geteuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{root} is not a directory of this user alone")
    name = bundle.digest.replace(":", "-")
    path = root / name
    with exclusive(root / f".{name}.lock"):
        sweep(root)
        for left in root.glob("sha256-*"):  # by servers that were killed; this copy, too, which nobody vouches for
            remove(left)
        while True:
            descriptor = hold(path)
            if descriptor is None:
                _copied(bundle, path)
            elif not _is_whole(path, bundle):
                os.close(descriptor)
                put_away(path)
            else:
                return SharedBundle(Bundle(path, bundle.manifest), descriptor)


def _copied(bundle: Bundle, to: Path) -> Bundle:
    return copy_bundle(to, bundle.manifest, lambda file: bundle.file(file).open("rb"), bundle.signature())


def _is_whole(path: Path, bundle: Bundle) -> bool:
    """Whether no file was removed or cut: something may clean the temporary directory."""
    try:
        return all((path / file).stat().st_size == entry.size for file, entry in bundle.manifest.files.items())
    except OSError:
        return False


def _give_back(path: Path, descriptor: int) -> None:
    os.close(descriptor)
    with suppress(OSError):
        remove(path)


def released(bundle: Bundle) -> None:
    """The model is loaded: nothing reads the bundle's files any more, but others may want to."""
    if isinstance(bundle, PrivateBundle):
        bundle.release()


def given_up(bundle: Bundle) -> None:
    """The model was not loaded."""
    released(bundle)
    if isinstance(bundle, SharedBundle):
        bundle.give_back()
