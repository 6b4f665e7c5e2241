"""The traffic of a release so far, read from the registry's windows a few at a time."""

from __future__ import annotations

from fairway.core.errors import InvalidData, NewerFormat
from fairway.registry.records import Release, Window
from fairway.rollout.store import WindowStore
from fairway.rollout.traffic import Traffic

LATE_S = 600.0
"""A window that reaches the registry longer than this after it ended does not count for a watch that goes on, in seconds."""


class Watch:
    """Adds up both versions' windows since the release started. Each counts once; kept between looks, a look is cheap.

    Losing one is no loss: a new one reads everything again. Clocks of replicas and controllers agree within
    :data:`LATE_S`.

    Attributes
    ----------
    unreadable : int
        Windows left out because they were damaged, or written by a newer Fairway.
    problem : str
        Why the last of those could not be read.
    """

    def __init__(self) -> None:
        self._start((), 0.0)

    def _start(self, watched: tuple[object, ...], since: float) -> None:
        self._watched = watched
        self._since = since
        self._seen: dict[tuple[int, str, float], float] = {}  # which windows were taken, and when they ended
        self._traffic: dict[int, Traffic] = {}
        self.unreadable = 0
        self.problem = ""

    def look(self, registry: WindowStore, release: Release, *, now: float) -> tuple[Traffic, Traffic]:
        """Champion's and challenger's traffic since the release started, in all windows flushed by ``now``."""
        watched = (release.model, release.champion, release.challenger, release.started_at)
        if watched != self._watched:
            self._start(watched, release.started_at)
        for window in registry.windows(release.model, since=self._since):
            self._take(window, release.started_at)
        self._since = max(self._since, now - LATE_S)
        self._seen = {key: ended for key, ended in self._seen.items() if ended > self._since}
        return self._of(release.champion), self._of(release.challenger)

    def _take(self, window: Window, started_at: float) -> None:
        key = (window.version, window.replica, window.started_at)
        if key in self._seen or window.started_at < started_at:  # began earlier: calls from before the release
            return
        self._seen[key] = window.ended_at
        try:
            traffic = Traffic.decode(window.traffic)
        except (InvalidData, NewerFormat) as error:
            self.unreadable += 1
            self.problem = str(error)
        else:
            self._traffic.setdefault(window.version, Traffic()).merge(traffic)

    def _of(self, version: int | None) -> Traffic:
        return self._traffic.get(version, Traffic()) if version is not None else Traffic()
