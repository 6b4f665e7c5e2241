"""Make a version ready to answer without getting in the way of those that do: verify, find room, load, warm up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from fairway.bundle.format import Bundle
from fairway.core.errors import FairwayError, InvalidBundle, ModelNotReady
from fairway.engines.cache import EngineCache
from fairway.model import Model
from fairway.serving.copies import given_up, released
from fairway.serving.filling import Filler
from fairway.serving.memory import resident_bytes
from fairway.serving.niceness import LOADING, give_way
from fairway.serving.repository import Opener
from fairway.serving.warmup import Warmed, warm_up

T = TypeVar("T")


class Loaded(msgspec.Struct, frozen=True, eq=False):
    """A version that could answer now, and what it takes."""

    model: Model
    warmed: Warmed
    digest: str
    size_bytes: int


class Loader:
    """Loads one version at a time. For the event loop's thread; the work is done on others.

    Verifying runs at a lower priority than answering, and so do loading and warming up where the engine uses no threads of
    its own: those inherit the priority, and would keep it for good.

    Parameters
    ----------
    threads : callable
        Threads of one engine call here, given what the bundle says (0: every core).
    cache : EngineCache, optional
        What engines are loaded from. What it lacks is made by another process.
    shared : bool, default False
        Whether other processes load the same: then what the cache lacks is made first, so that all map the same pages; else
        once the version is loaded, for the next time.
    """

    def __init__(
        self,
        threads: Callable[[int], int] = lambda bundled: bundled,
        *,
        cache: EngineCache | None = None,
        shared: bool = False,
    ) -> None:
        self._threads = threads
        self._cache = cache
        self._filler = Filler(cache, threads) if cache is not None else None
        self._shared = shared
        self._filling: set[asyncio.Task[None]] = set()
        self._gentle = ThreadPoolExecutor(
            1, thread_name_prefix="fairway-load", initializer=give_way, initargs=(LOADING,)
        )
        self._plain = ThreadPoolExecutor(1, thread_name_prefix="fairway-warm")
        self._one = asyncio.Lock()
        self._closed = False
        self._sizes: dict[str, int] = {}

    async def load(
        self, opened: Opener, *, size_bytes: int | None, make_room: Callable[[int], Awaitable[None]]
    ) -> Loaded:
        """Load what ``opened`` gives.

        Parameters
        ----------
        opened : callable
        size_bytes : int or None
            What the version takes, if that is known; else it is measured.
        make_room : callable
            Unloads others until so many bytes are free, or raises. Called when the bundle is verified, and again if more turns
            out to be needed.

        Raises
        ------
        FairwayError
            If the bundle cannot be had, read, loaded or warmed up, or there is no room.
        """
        bundle = await self._run(self._gentle, opened)
        try:
            if self._shared:
                await self.prepare(bundle)
            async with self._one:  # room that was made for one is not taken by another
                loaded = await self._load(bundle, size_bytes, make_room)
        except BaseException:
            given_up(bundle)
            raise
        if self._shared or self._filler is None or loaded.model.cached:
            released(bundle)
        else:
            task = asyncio.get_running_loop().create_task(self._prepare_later(bundle))
            self._filling.add(task)
            task.add_done_callback(self._filling.discard)
        return loaded

    async def prepare(self, bundle: Bundle) -> None:
        """Have ready what the bundle's engine loads from, if it is worth it. Never fails."""
        if self._filler is not None and not self._closed:
            await self._filler.fill(bundle)

    async def _prepare_later(self, bundle: Bundle) -> None:
        try:
            await self.prepare(bundle)
        finally:
            released(bundle)

    def close(self) -> None:
        """Load nothing more. What is being loaded just now is given up when it is ready."""
        self._closed = True
        if self._filler is not None:
            self._filler.close()
        for task in self._filling:
            task.cancel()
        self._gentle.shutdown(wait=False, cancel_futures=True)
        self._plain.shutdown(wait=False, cancel_futures=True)

    async def _load(
        self, bundle: Bundle, size_bytes: int | None, make_room: Callable[[int], Awaitable[None]]
    ) -> Loaded:
        expected = size_bytes or self._sizes.get(bundle.digest, bundle.size_bytes)
        await make_room(expected)
        single = self._threads(bundle.manifest.engine.threads) == 1
        model, warmed, grown = await self._run(self._gentle if single else self._plain, lambda: self._build(bundle))
        measured = max(grown, bundle.size_bytes)
        self._sizes[bundle.digest] = measured
        try:
            if self._closed:
                raise ModelNotReady("the server is stopping; send the request again, elsewhere")
            if size_bytes is None and measured > expected:
                await make_room(measured)
        except BaseException:
            model.close()
            raise
        return Loaded(model, warmed, bundle.digest, size_bytes or measured)

    def _build(self, bundle: Bundle) -> tuple[Model, Warmed, int]:
        """In the thread."""
        if self._closed:
            raise ModelNotReady("the server is stopping; send the request again, elsewhere")
        before = resident_bytes()
        try:
            model = Model(bundle, threads=self._threads(bundle.manifest.engine.threads), cache=self._cache)
        except FairwayError:
            raise
        except Exception as error:
            raise InvalidBundle(f"{bundle.path} cannot be loaded: {error}") from error
        try:
            warmed = warm_up(model, bundle)
        except BaseException:
            model.close()
            raise
        return model, warmed, resident_bytes() - before

    async def _run(self, executor: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        if self._closed:
            raise ModelNotReady("the server is stopping; send the request again, elsewhere")
        return await asyncio.get_running_loop().run_in_executor(executor, call)
