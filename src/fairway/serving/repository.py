"""What a server knows under a name, and how to get it: bundles that it was given, or (in ``follow``) a registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from fairway.bundle.format import Bundle, read_bundle
from fairway.core.errors import InvalidBundle
from fairway.serving.copies import maps_files, safe_copy
from fairway.serving.routing import Route

Opener: TypeAlias = Callable[[], Bundle]
"""Gives a verified bundle. Runs in a thread."""


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
    shared : bool, default False
        Whether other processes serve them, too.
    """

    overridable = True

    def __init__(self, bundles: Sequence[Bundle], *, shared: bool = False) -> None:
        self._shared = shared
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
            version: partial(read_again, bundle.path, name, shared=self._shared) for version, bundle in given.items()
        }
        return Offer(openers, Route(next(reversed(given))))


def read_again(path: Path, name: str, *, shared: bool = False) -> Bundle:
    """The bundle that lies at ``path`` now, verified. Raises :class:`InvalidBundle` if it is another model's."""
    bundle = read_bundle(path, verify=False)
    if bundle.manifest.name != name:
        raise InvalidBundle(
            f"{path} now holds the model {bundle.manifest.name!r} instead of {name!r}; put that one back"
        )
    if maps_files(bundle):
        return safe_copy(bundle, shared=shared)  # verified on the way
    bundle.verify()
    return bundle
