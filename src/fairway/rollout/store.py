"""The part of a registry that a release needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fairway.core.events import Action
from fairway.registry.records import Release, Version, Window


class ReleaseStore(Protocol):
    """What :class:`fairway.registry.store.Registry` offers to releases; see there."""

    def version(self, ref: str) -> Version:
        """The version that a reference names, or :class:`ModelNotFound`."""
        ...

    def aliases(self, model: str) -> dict[str, int]:
        """The model's aliases."""
        ...

    def release(self, model: str) -> Release | None:
        """The model's release, ``None`` if none was ever made."""
        ...

    def save_release(
        self,
        release: Release,
        *,
        expected: int | None,
        action: Action,
        actor: str,
        reason: str = "",
        evidence: Any = None,
    ) -> Release:
        """Compare-and-swap on the revision, the champion alias and the event, in one transaction; or :class:`Conflict`."""
        ...

    def record(self, model: str, action: Action, actor: str, reason: str = "", evidence: Any = None) -> None:
        """An event alone."""
        ...


class WindowStore(ReleaseStore, Protocol):
    """With the windows that servers flush, for whoever watches a release."""

    def windows(self, model: str, version: int | None = None, since: float | None = None) -> Sequence[Window]:
        """Windows that ended after ``since``."""
        ...
