"""One of a server's workers: a :class:`~fairway.serving.service.Service` that another process started, watches and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import uvloop

from fairway.core.errors import FairwayError, ServerUnavailable
from fairway.serving import channel
from fairway.serving.channel import Lines, Start
from fairway.serving.footprint import settle
from fairway.serving.service import Service
from fairway.serving.shared_metrics import Counts, counts_of
from fairway.serving.shared_statistics import counts_of_version
from fairway.serving.statistics import statistics_of
from fairway.serving.taking_part import TakingPart

log = logging.getLogger(__name__)

MakeService: TypeAlias = Callable[[contextlib.ExitStack], Service]

BEAT_S = 1.0
"""How often a worker tells its counts: what a killed one takes with it was counted since."""

_PATIENCE_S = 2.0


def sockets_of(start: Start) -> dict[str, socket.socket]:
    """The listening sockets of one worker."""
    return {name: socket.socket(fileno=numbers[start.slot]) for name, numbers in start.sockets.items()}


def run_worker(start: Start, make_service: MakeService) -> int:
    """Serve until told to end; gives the process's exit code.

    ``make_service`` gets a stack for what is to be closed after the service has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the process that watches, which then tells
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(start).main(make_service))


class Worker(asyncio.Protocol):
    """A worker's end of the channel, and what it does when told."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._lines = Lines()
        self._transport: asyncio.WriteTransport | None = None
        self._lost = asyncio.Event()
        self._going: asyncio.Future[bool] | None = None
        self._service: Service | None = None
        self._serving: asyncio.Task[None] | None = None
        self._covering: dict[int, asyncio.Task[Callable[[], None]]] = {}
        self._scrapes: dict[int, asyncio.Future[Counts]] = {}
        self._part: TakingPart | None = None
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def main(self, make_service: MakeService) -> int:
        """Serve until told to end; gives the process's exit code."""
        loop = asyncio.get_running_loop()
        self._going = loop.create_future()
        end = socket.socket(fileno=self._start.channel)
        await loop.create_unix_connection(lambda: self, sock=end)
        loop.add_signal_handler(signal.SIGTERM, lambda: self._say(channel.Asked()))
        beating: asyncio.Task[None] | None = None
        stack = contextlib.ExitStack()
        try:
            if self._lost.is_set():
                return 0
            self._service = service = make_service(stack)
            service.telemetry.gather = self.gather
            self._part = TakingPart(service.management, self._say, self._keep, lambda: self._end(0.0))
            service.management.everywhere = self._part.everywhere
            service.drained = self._tell
            beating = loop.create_task(self._beat())
            self._serving = loop.create_task(
                service.main(self._started, gate=self._gate, early=self._start.early), name="serving"
            )
            await self._serving
        except asyncio.CancelledError:
            return 0  # told to end before it could answer
        except Exception as error:
            if not isinstance(error, FairwayError):
                log.exception("worker_failed")
            code = error.code if isinstance(error, FairwayError) else FairwayError.code
            self._say(channel.Failed(code, str(error) or type(error).__name__))
            return 1
        finally:
            stack.close()
            if beating is not None:
                beating.cancel()
            await self._hang_up()
        return 0

    async def gather(self) -> Counts:
        """Everybody's counts.

        Raises
        ------
        ServerUnavailable
            If the process that knows them does not answer.
        """
        self._number += 1
        number = self._number  # others may ask before the answer comes
        answer = self._scrapes[number] = asyncio.get_running_loop().create_future()
        self._say(channel.Scrape(number, self._counts()))
        try:
            return await asyncio.wait_for(answer, _PATIENCE_S)
        except TimeoutError:
            raise ServerUnavailable("the process that joins all workers' numbers does not answer; try again") from None
        finally:
            self._scrapes.pop(number, None)

    # -- the channel

    def connection_made(self, transport: Any) -> None:
        """The channel is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Something was said."""
        for each in self._lines.feed(data):
            self._heard(channel.to_worker.decode(each))

    def connection_lost(self, _: Exception | None) -> None:
        """Whoever watched is gone: end at once, so that nobody holds the port; what was accepted is answered."""
        self._lost.set()
        if self._part is not None:
            self._part.lost()
        if self._serving is not None and not self._serving.done():
            log.error("supervisor_lost", extra={"reason": "it ended; so does this worker"})
            self._end(0.0)

    def _say(self, message: channel.FromWorker) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(channel.line(message))

    def _heard(self, message: channel.ToWorker) -> None:
        if isinstance(message, channel.Go):
            self._go(True)
        elif isinstance(message, channel.Count):
            self._say(channel.Counted(self._counts()))
        elif isinstance(message, channel.Sum):
            waiting = self._scrapes.pop(message.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.counts)
        elif isinstance(message, channel.Stop):
            self._end(message.delay_s)
        elif isinstance(message, channel.Retire):
            if self._service is not None:
                self._keep(self._service.retire(message.delay_s))
        elif isinstance(message, channel.Cover):
            self._cover(message.slot)
        elif isinstance(message, channel.Uncover):
            self._uncover(message.slot)
        elif self._part is not None:
            self._part.heard(message)

    # -- its life

    async def _gate(self) -> bool:
        assert self._going is not None
        assert self._service is not None
        engines = [served.model.manifest.engine for served in self._service.models.live()]
        threads = [0 if engine.accelerated else engine.threads for engine in engines]
        self._say(channel.Loaded(0 if 0 in threads else max(threads, default=1)))
        return await self._going

    def _go(self, on: bool) -> None:
        if self._going is not None and not self._going.done():
            self._going.set_result(on)

    def _started(self) -> None:
        settle()
        sys.stderr.flush()
        os.dup2(self._start.stderr, 2)  # what it said until now, the watching process heard
        self._say(channel.Serving())

    def _end(self, delay_s: float) -> None:
        self._go(False)
        service, serving = self._service, self._serving
        if service is None or serving is None:
            return
        if service.ready or service.stopping:
            service.stop(delay_s)
        else:
            serving.cancel()

    def _cover(self, slot: int) -> None:
        service = self._service
        if service is None or not service.ready or slot in self._covering:
            return
        listeners = {name: socket.socket(fileno=os.dup(fds[slot])) for name, fds in self._start.sockets.items()}
        self._covering[slot] = asyncio.get_running_loop().create_task(service.accept(listeners))

    def _uncover(self, slot: int) -> None:
        covering = self._covering.pop(slot, None)
        if covering is not None:
            covering.add_done_callback(_close)

    async def _beat(self) -> None:
        while True:
            transport = self._transport
            if transport is not None and transport.get_write_buffer_size() < _MOST_UNSAID:
                self._tell()
            await asyncio.sleep(BEAT_S)

    def _tell(self) -> None:
        self._say(channel.Beat(self._counts()))

    def _counts(self) -> Counts:
        service = self._service
        if service is None:
            return {}
        counts = counts_of(service.registry.collect())
        for stats in service.telemetry.versions.values():
            counts |= counts_of_version(statistics_of(stats))
        return counts

    async def _hang_up(self) -> None:
        """Let what was said arrive."""
        self._serving = None
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _PATIENCE_S)

    def _keep(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_MOST_UNSAID = 1 << 20


def _close(covering: asyncio.Task[Callable[[], None]]) -> None:
    if not covering.cancelled() and covering.exception() is None:
        covering.result()()
