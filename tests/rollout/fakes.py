"""A registry in memory, with the real one's compare-and-swap and audit trail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from fairway.core.errors import Conflict, ModelNotFound
from fairway.core.events import Action
from fairway.core.manifest import Manifest, ModelRef
from fairway.registry.records import CHAMPION, Event, Release, Version, Window
from fairway.registry.releases import check_release
from fairway.rollout.traffic import Traffic

MODEL = "digits"


class FakeRegistry:
    """Versions 1 to 9 of ``digits``. ``before_save`` runs once, just before the next save: somebody who is faster."""

    def __init__(self) -> None:
        self.releases: dict[str, Release] = {}
        self.trail: list[Event] = []
        self.flushed: list[Window] = []
        self.champion: dict[str, int] = {}
        self.before_save: Callable[[], object] | None = None
        self.windows_read = 0

    def version(self, ref: str) -> Version:
        parsed = ModelRef.parse(ref)
        number = parsed.version or self.champion.get(parsed.name, 9)
        if parsed.name != MODEL or number > 9:
            raise ModelNotFound(ref, [MODEL])
        manifest = Manifest(parsed.name, "classification", (), (), {})
        return Version(parsed.name, number, f"sha256:{number}", 0.0, 0, manifest)

    def aliases(self, model: str) -> dict[str, int]:
        return {CHAMPION: self.champion[model]} if model in self.champion else {}

    def release(self, model: str) -> Release | None:
        return self.releases.get(model)

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
        hook, self.before_save = self.before_save, None
        if hook is not None:
            hook()
        check_release(release)
        current = self.releases.get(release.model)
        if (current.revision if current else None) != expected:
            raise Conflict("the release changed meanwhile")
        saved = msgspec.structs.replace(release, revision=(expected or 0) + 1)
        self.releases[release.model] = saved
        self.champion[release.model] = release.champion
        self.record(release.model, action, actor, reason, evidence)
        return saved

    def record(self, model: str, action: Action, actor: str, reason: str = "", evidence: Any = None) -> None:
        kept = msgspec.json.decode(msgspec.json.encode(evidence))
        self.trail.append(Event(len(self.trail) + 1, 0.0, model, action, actor, reason, {}, kept))

    def windows(self, model: str, version: int | None = None, since: float | None = None) -> Sequence[Window]:
        found = [
            w
            for w in self.flushed
            if w.model == model and version in (None, w.version) and (since is None or w.ended_at > since)
        ]
        self.windows_read += len(found)
        return found

    # What a test does to it

    def flush(
        self,
        version: int,
        started_at: float,
        *,
        requests: int = 100,
        errors: int = 0,
        replica: str = "a",
        ms: float = 2.0,
    ) -> None:
        traffic = Traffic()
        traffic.add(rows=requests, latencies_ms=np.full(requests - errors, ms), errors=errors)
        self.flush_bytes(version, started_at, traffic.encode(), replica=replica)

    def flush_bytes(self, version: int, started_at: float, traffic: bytes, *, replica: str = "a") -> None:
        self.flushed.append(Window(MODEL, version, replica, started_at, started_at + 10, traffic, b""))

    @property
    def actions(self) -> list[Action]:
        return [event.action for event in self.trail]
