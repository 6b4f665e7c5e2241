"""What a server knows under a name, and how to get it: bundles that it was given, or (in ``follow``) a registry."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from fairway.bundle.format import Bundle, copy_bundle, read_bundle
from fairway.bundle.samples import SAMPLES
from fairway.core.errors import InvalidBundle, InvalidConfig
from fairway.serving.routing import Route

Opener: TypeAlias = Callable[[], Bundle]
"""Gives a verified bundle. Runs in a thread."""

_MAPPED_FROM_BYTES = 64 * 2**10


class Offer(msgspec.Struct, frozen=True, eq=False):
    """What is to be served under a name: how to get each version, and where callers go."""

    versions: dict[str, Opener]
    route: Route


class Repository(Protocol):
    """Where a server's models come from. For the event loop's thread."""

    overridable: bool
    """Whether a caller may bring files of its own."""

    async def offer(self, name: str) -> Offer | None:
        """What is to be served under ``name`` now; ``None`` if the name is unknown here."""
        ...


class GivenBundles:
    """Bundles that a server was started with; those of one model are its versions 1, 2 …, the last answers by default.

    Parameters
    ----------
    bundles : sequence of Bundle
    """

    overridable = True

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._paths: dict[str, dict[str, Bundle]] = {}
        for bundle in bundles:
            versions = self._paths.setdefault(bundle.manifest.name, {})
            versions[str(len(versions) + 1)] = bundle

    def names(self) -> list[str]:
        """All models, in the order in which they were given."""
        return list(self._paths)

    async def offer(self, name: str) -> Offer | None:
        """The bundles of ``name``, to be read again from where they were."""
        given = self._paths.get(name)
        if given is None:
            return None
        openers: dict[str, Opener] = {
            version: partial(read_again, bundle.path, name) for version, bundle in given.items()
        }
        return Offer(openers, Route(next(reversed(given))))


def read_again(path: Path, name: str) -> Bundle:
    """The bundle that lies at ``path`` now, verified. Raises :class:`InvalidBundle` if it is another model's."""
    bundle = read_bundle(path, verify=False)
    if bundle.manifest.name != name:
        raise InvalidBundle(
            f"{path} now holds the model {bundle.manifest.name!r} instead of {name!r}; put that one back"
        )
    if maps_files(bundle):
        return safe_copy(bundle)  # verified on the way
    bundle.verify()
    return bundle


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


def safe_copy(bundle: Bundle) -> Bundle:
    """A private, verified copy of a bundle whose weights will be mapped.

    Whoever shortens a file that is mapped kills the process with SIGBUS at its next read, and ``cp`` over a bundle does
    just that.

    Raises
    ------
    InvalidBundle
        If the bundle changes while it is copied.
    InvalidConfig
        If there is no room for the copy.
    """
    folder: tempfile.TemporaryDirectory[str] | None = None
    try:
        folder = tempfile.TemporaryDirectory(prefix="fairway-")
        copied = copy_bundle(
            Path(folder.name) / "bundle", bundle.manifest, lambda file: bundle.file(file).open("rb"), bundle.signature()
        )
        return PrivateBundle(copied, folder)
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


def released(bundle: Bundle) -> None:
    """The model is loaded: nothing reads the bundle's files any more."""
    if isinstance(bundle, PrivateBundle):
        bundle.release()
