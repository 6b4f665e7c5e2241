"""What the registry keeps, as typed values. Times are seconds since the epoch, UTC."""

from __future__ import annotations

from typing import Any

import msgspec

from fairway.core.events import Action
from fairway.core.manifest import Manifest, ModelRef

CHAMPION = "champion"
"""The alias of the version that answers when no release says otherwise."""


class Version(msgspec.Struct, frozen=True):
    """One registered bundle.

    Attributes
    ----------
    model : str
    number : int
        1, 2, 3 … within the model, without gaps.
    digest : str
        The bundle's identity, ``sha256:…``.
    created_at : float
    size_bytes : int
        Of the bundle's files.
    manifest : Manifest
    parent : str
        The version or digest that it was made from (``manifest.lineage.parent``); empty if unknown.
    signed : bool
        Whether a signature is kept with it. ``fairway register --verify`` checks it; keeping it does not.
    """

    model: str
    number: int
    digest: str
    created_at: float
    size_bytes: int
    manifest: Manifest
    parent: str = ""
    signed: bool = False

    @property
    def ref(self) -> str:
        """Such as ``digits:4``."""
        return str(ModelRef(self.model, self.number))


class Release(msgspec.Struct, frozen=True):
    """Which versions answer a model's callers, and in which proportion. Every replica moves itself there.

    Attributes
    ----------
    champion : int
    challenger : int or None
        Gets ``weight`` (0 to 1) of the callers.
    previous : int or None
        The champion before this one: where a rollback goes.
    revision : int
        Grows by one with every change; :meth:`~fairway.registry.store.Registry.save_release` sets it.
    started_at, updated_at : float
    """

    model: str
    champion: int
    challenger: int | None = None
    weight: float = 0.0
    previous: int | None = None
    revision: int = 0
    started_at: float = 0.0
    updated_at: float = 0.0


class Event(msgspec.Struct, frozen=True):
    """One line of the audit trail, never changed or removed.

    Attributes
    ----------
    id : int
        Grows with every event; readers go on ``after`` the last one they saw.
    change : dict
        What became different. Replaying all changes gives the registry's state.
    evidence : object
        What the decision rested on, as JSON data, or ``None``.
    """

    id: int
    at: float
    model: str
    action: Action
    actor: str
    reason: str
    change: dict[str, Any]
    evidence: Any = None


class Window(msgspec.Struct, frozen=True):
    """What one replica saw of one version in one span of time. ``traffic`` and ``features`` are opaque here."""

    model: str
    version: int
    replica: str
    started_at: float
    ended_at: float
    traffic: bytes
    features: bytes


class Replica(msgspec.Struct, frozen=True):
    """One server process: where it is, which versions it has loaded (``digits:4``), and when it last said so."""

    id: str
    url: str
    models: tuple[str, ...]
    seen_at: float
