"""Versions that a registry announces are made ready on this machine before anybody is sent to them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from fairway.bundle.format import Bundle
from fairway.registry.records import Version
from fairway.serving.niceness import LOADING, give_way

log = logging.getLogger(__name__)

_MOST = 2
"""Versions of one model."""


def announced(champion: int, aliases: Mapping[str, int], newest: int | None, wanted: frozenset[int]) -> list[int]:
    """Which versions of a model may be released next, newest first. Pure.

    The newest that is registered, and what aliases name, if that is newer than the champion and not served anyway.

    Examples
    --------
    >>> announced(3, {"champion": 3, "staging": 5, "last-year": 1}, 6, frozenset({3}))
    [6, 5]
    >>> announced(3, {"champion": 3}, 3, frozenset({3}))
    []
    """
    named = {*aliases.values(), *(() if newest is None else (newest,))}
    return sorted((number for number in named - wanted if number > champion), reverse=True)[:_MOST]


class Prefetch:
    """Fetches versions and prepares them, one at a time, giving way to requests. For the event loop's thread.

    Parameters
    ----------
    fetch : callable
        Gives a version's bundle, verified. Called in a thread.
    prepare : callable
        Awaited with the bundle; never fails.
    """

    def __init__(self, fetch: Callable[[Version], Bundle], prepare: Callable[[Bundle], Awaitable[None]]) -> None:
        self._fetch = fetch
        self._prepare = prepare
        self._next: list[Version] = []
        self._tried: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def announce(self, versions: Sequence[Version]) -> None:
        """Make these ready, in this order, instead of what still waited. Each is tried once, or again when all are gone."""
        self._tried &= {version.digest for version in versions}
        self._next = [version for version in versions if version.digest not in self._tried]
        if self._next and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Fetch nothing more. What is being fetched is not waited for."""
        self._next = []
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while self._next:
            version = self._next.pop(0)
            self._tried.add(version.digest)
            began = time.monotonic()
            try:
                bundle = await self._fetched(version)
                await self._prepare(bundle)
            except Exception as error:  # noqa: BLE001 (it is tried again when it is released, and the reason then matters)
                log.info("prefetch_failed", extra={"version": version.ref, "reason": str(error)})
            else:
                took_ms = round((time.monotonic() - began) * 1e3, 1)
                log.info("version_prefetched", extra={"version": version.ref, "duration_ms": took_ms})

    async def _fetched(self, version: Version) -> Bundle:
        """By a thread that the process does not wait for when it ends: what is half fetched is never used."""
        loop = asyncio.get_running_loop()
        fetched: asyncio.Future[Bundle] = loop.create_future()

        def tell(settle: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(lambda: None if fetched.done() else settle())

        def fetch() -> None:
            give_way(LOADING)
            try:
                bundle = self._fetch(version)
            except Exception as error:  # noqa: BLE001 (raised where it is awaited)
                tell(partial(fetched.set_exception, error))
            else:
                tell(partial(fetched.set_result, bundle))

        threading.Thread(target=fetch, name="fairway-prefetch", daemon=True).start()
        return await fetched
