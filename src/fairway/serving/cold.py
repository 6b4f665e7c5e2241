"""What was unloaded to make room, and is loaded again when somebody asks for it."""

from __future__ import annotations

import time

import msgspec

from fairway.core.errors import FairwayError, ModelNotReady
from fairway.serving.repository import Opener
from fairway.serving.served import Description

_MAX_RETRY_S = 60.0


class ColdModel(ModelNotReady):
    """The version was unloaded to make room. :meth:`Models.wake` loads it again."""

    def __init__(self, name: str, version: str, description: Description) -> None:
        super().__init__(
            f"version {version} of {name!r} was unloaded to make room; an inference request loads it again"
        )
        self.name = name
        self.version = version
        self.description = description


class Cold(msgspec.Struct):
    """How to load it again: after a failure not until ``retry_at``, on the monotonic clock. Pauses grow to a minute."""

    opened: Opener
    description: Description
    _failure: FairwayError | None = None
    retry_at: float = 0.0
    _retry_s: float = 1.0

    def check(self) -> None:
        """Raise the last failure while it is too early to try again."""
        if self._failure is not None and time.monotonic() < self.retry_at:
            raise self._failure

    def failed(self, error: FairwayError) -> None:
        """Loading it failed."""
        self._failure = error
        self.retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _MAX_RETRY_S)
