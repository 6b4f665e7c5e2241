"""Where the registry's database and blobs are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where versions, aliases, releases and windows are kept.

    Attributes
    ----------
    url : str
        The database: ``sqlite:///path`` or ``postgresql://user:password@host/name``. Empty: SQLite in
        ``.fairway/registry.db``.
    blobs : str
        Where bundle files are kept: a folder, or any fsspec URL such as ``s3://bucket/prefix``. Empty: ``.fairway/blobs``.
        Every machine that serves from this registry must reach it.
    cache_mb : float
        What fetched bundles may take on this machine, in 10^6 bytes (``.fairway/cache``; those that are used stay, the longest
        unused go first); 0 is no limit.
    keep_windows_days : float
        How long the windows that servers report are kept, in days; 0 keeps them for ever. Those that a release is still decided
        on stay.
    max_windows : int
        Windows of one model, over all of its versions and servers; beyond it the oldest go. 0 is no limit. One takes up
        to about 24 kB, and 50 bytes per feature.
    lock_timeout_s : float
        How long to wait for another process that is writing to the database, in seconds.
    """

    url: str = ""
    blobs: str = ""
    cache_mb: Annotated[float, msgspec.Meta(ge=0)] = 20_000.0
    keep_windows_days: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    max_windows: Annotated[int, msgspec.Meta(ge=0)] = 100_000
    lock_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0

    def at(self, root: Path) -> RegistrySettings:
        """The same settings with every relative path, and the defaults, taken from ``root``.

        Examples
        --------
        >>> RegistrySettings().at(Path("/srv")).url
        'sqlite:////srv/.fairway/registry.db'
        >>> RegistrySettings(url="postgresql://db/fairway", blobs="s3://models").at(Path("/srv")).blobs
        's3://models'
        """
        url = self.url or f"{_SQLITE}.fairway/registry.db"
        if url.startswith(_SQLITE) and not url.startswith(f"{_SQLITE}file:"):
            url = f"{_SQLITE}{root.absolute() / url.removeprefix(_SQLITE)}"
        blobs = self.blobs or ".fairway/blobs"
        if "://" not in blobs:
            blobs = str(root.absolute() / blobs)
        return msgspec.structs.replace(self, url=url, blobs=blobs)


_SQLITE = "sqlite:///"
