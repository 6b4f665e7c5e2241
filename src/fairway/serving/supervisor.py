"""The process that starts a server's workers, watches them and ends them. It never runs a model, and imports little.

It holds the listening sockets, one per worker on one port, so that a connection which waits to be accepted outlives the
worker that was to accept it. See decision 0012.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from fairway.core.errors import FairwayError, WorkerFailed
from fairway.serving import channel, workers
from fairway.serving.changes import Changes
from fairway.serving.channel import Start
from fairway.serving.control import error_of
from fairway.serving.listening import BACKLOG, bind_shared, reachable
from fairway.serving.logs import QueuedLines
from fairway.serving.processes import Process
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_metrics import Counts, Ledger
from fairway.serving.signals import has_terminal, received

log = logging.getLogger(__name__)

_TURN_S = 0.25
_SCRAPE_S = 0.5
_LOADING_S = 60.0
_RETIRE_S = 5.0
_KILL_AFTER_S = 2.0
_HELD_UP_S = 2.0
_DEAF_AFTER_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Slot:
    """One of the listening sockets, and who accepts its connections.

    Attributes
    ----------
    current, successor : Process or None
        The worker whose slot it is, and the one that is to take over.
    cover : Process or None
        Another slot's worker that accepts here meanwhile.
    start_at : float or None
        When the next worker is started.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: Process | None = None
        self.successor: Process | None = None
        self.cover: Process | None = None
        self.start_at: float | None = None
        self.restarts = workers.Restarts()


class _Scrape:
    """Somebody waits for the counts of all."""

    def __init__(self, asker: Process, number: int, missing: set[int]) -> None:
        self.asker = asker
        self.number = number
        self.missing = missing
        self.ends = time.monotonic() + _SCRAPE_S


class Supervisor:
    """Starts workers, and keeps them running until SIGTERM or SIGINT.

    Parameters
    ----------
    command : sequence of str
        What starts a worker; a :class:`~fairway.serving.channel.Start` is added.
    spec : bytes
        JSON, handed to each worker: what to serve.
    settings : ServeSettings
    started : callable
        Called with the URL once all workers are ready.
    """

    def __init__(
        self, command: Sequence[str], spec: bytes, settings: ServeSettings, started: Callable[[str], None]
    ) -> None:
        self._command = command
        self._spec = msgspec.Raw(spec)
        self._settings = settings
        self._started: Callable[[str], None] | None = started
        self._cores = workers.cores()
        self._count = workers.wanted(settings.workers, settings.threads, self._cores)
        slots = self._count or self._cores
        listeners = bind_shared(settings.host, settings.port, slots)
        self._sockets: dict[str, list[socket.socket]] = {"rest": listeners}
        if settings.grpc_port is not None:
            self._sockets["grpc"] = bind_shared(settings.host, settings.grpc_port, slots)
        self._url = f"http://{reachable(settings.host)}:{listeners[0].getsockname()[1]}"
        self._slots: list[Slot] = []
        self._processes: dict[int, Process] = {}
        self._rolling: list[Slot] = []
        self._scrapes: list[_Scrape] = []
        self._ledger = Ledger()
        self._changes = Changes(lambda: [each for each in self._processes.values() if each.joined])
        self._restarted = 0
        self._ready = self._stopping = False
        self._deaf_at = math.inf
        self._turned_at = time.monotonic()
        self._failure: FairwayError | None = None
        self._selector = selectors.DefaultSelector()
        self._stderr = _stderr()
        self._lock = os.memfd_create("fairway-log-lock")
        self._terminal = has_terminal()

    def run(self) -> None:
        """Serve until told to end.

        Raises
        ------
        WorkerFailed
            If workers die again and again before any was ready.
        FairwayError
            What kept the workers from becoming ready.
        """
        with received(self._selector, _SIGNALS, self._signalled):
            _share_log(self._lock)
            try:
                for number in range(self._count or 1):
                    self._add_slot(number)
                while self._processes or not self._stopping:
                    self._turn()
            finally:
                for process in self._processes.values():
                    process.kill()
                for shared in self._sockets.values():
                    for listener in shared:
                        listener.close()
                self._selector.close()
                os.close(self._stderr)
        if self._failure is not None:
            raise self._failure
        log.info("server_stopped", extra={"url": self._url})

    # -- one turn

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._wait_s()):
            if key.data is not None:
                key.data()
        for process in list(self._processes.values()):
            process.channel.flush()
            if process.ended():
                self._ended(process)
        now = time.monotonic()
        self._forgive(now)
        self._check(now)

    def _wait_s(self) -> float:
        starts = [slot.start_at for slot in self._slots if slot.start_at is not None]
        return max(0.0, min([_TURN_S, *(at - time.monotonic() for at in starts)]))

    def _forgive(self, now: float) -> None:
        """While this process did not run (a paused container, a machine that slept), no worker is taken to have been silent."""
        lost, self._turned_at = now - self._turned_at, now
        if lost > _HELD_UP_S:
            for process in self._processes.values():
                process.heard_at = min(now, process.heard_at + lost)

    def _check(self, now: float) -> None:
        """What is due."""
        for slot in self._slots:
            if slot.start_at is not None and now >= slot.start_at:
                slot.start_at = None
                slot.current = self._start_again(slot)
                if slot.current is None:
                    slot.start_at = now + slot.restarts.died(0.0)
        if now >= self._deaf_at:
            self._deafen()
        for process in self._processes.values():
            if process.kill_at is not None and now >= process.kill_at:
                log.error("worker_killed", extra=process.about(reason="it did not end in time"))
                process.kill_at = None
                process.kill()
            elif now - process.heard_at > self._patience_s(process) and process.kill_at is None:
                log.error("worker_stuck", extra=process.about(silent_s=round(now - process.heard_at, 1)))
                process.kill_at = now + _KILL_AFTER_S  # said once
                process.kill()
        for scrape in [scrape for scrape in self._scrapes if not scrape.missing or now >= scrape.ends]:
            self._scrapes.remove(scrape)
            scrape.asker.send(channel.Sum(scrape.number, self._counts()))
        self._changes.check(now)
        self._roll()

    def _patience_s(self, process: Process) -> float:
        """A worker that imports and loads may be silent for longer than one that serves."""
        return self._settings.worker_timeout_s if process.loaded else max(self._settings.worker_timeout_s, _LOADING_S)

    # -- starting

    def _add_slot(self, number: int) -> None:
        for listeners in self._sockets.values():
            listeners[number].listen(BACKLOG)
        slot = Slot(number)
        self._slots.append(slot)
        slot.current = self._start(slot)

    def _start(self, slot: Slot) -> Process:
        start = Start(
            slot=slot.number,
            workers=self._count or 1,
            channel=-1,
            stderr=self._stderr,
            lock=self._lock,
            sockets={name: [each.fileno() for each in listeners] for name, listeners in self._sockets.items()},
            early=not self._ready,
            spec=self._spec,
        )
        try:
            process = Process(self._command, start, _relay)
        except OSError as error:
            raise WorkerFailed(
                f"no process can be started for a worker: {error}; see what the system allows (ulimit -n, ulimit -u, memory)"
            ) from error
        self._processes[process.id] = process
        self._selector.register(process.channel.end, selectors.EVENT_READ, lambda: self._listen(process))
        if process.stderr is not None:
            self._selector.register(process.stderr, selectors.EVENT_READ, lambda: self._relay(process))
        log.info("worker_started", extra=process.about())
        return process

    def _start_again(self, slot: Slot) -> Process | None:
        """A worker in a running server: what keeps one from being started ends none of the others."""
        try:
            return self._start(slot)
        except WorkerFailed as error:
            log.error("worker_not_started", extra={"worker": slot.number, "reason": str(error)})
            return None

    def _relay(self, process: Process) -> None:
        said = process.stderr
        process.relay()
        if said is not None and process.stderr is None:
            self._selector.unregister(said)

    # -- what workers say

    def _listen(self, process: Process) -> None:
        try:
            for message in process.receive():
                self._heard(process, message)
        except msgspec.MsgspecError as error:  # it runs another version of this program
            log.error("worker_not_understood", extra=process.about(reason=str(error)))
            process.kill()
        if process.channel.closed:
            with contextlib.suppress(KeyError):
                self._selector.unregister(process.channel.end)

    def _heard(self, process: Process, message: channel.FromWorker) -> None:
        if isinstance(message, channel.Beat):
            self._ledger.note(process.id, message.counts)
        elif isinstance(message, channel.Counted):
            self._ledger.note(process.id, message.counts)
            for scrape in self._scrapes:
                scrape.missing.discard(process.id)
        elif isinstance(message, channel.Scrape):
            self._scrape(process, message)
        elif isinstance(message, channel.Loaded):
            process.loaded = True
            self._loaded(process, message.threads)
        elif isinstance(message, channel.Serving):
            self._serves(process)
        elif isinstance(message, channel.Failed):
            process.failed = message
        elif isinstance(message, channel.Ask):
            self._changes.ask(process, message)
        elif isinstance(message, channel.MadeReady | channel.Made | channel.CaughtUp):
            self._changes.heard(process, message)
        elif not self._stopping and process.serving:
            self._rolling += [slot for slot in self._slots if slot.current is process and slot not in self._rolling]

    def _loaded(self, process: Process, threads: int) -> None:
        if self._stopping:
            return
        if self._ready:
            self._changes.join(process)
            return
        if self._count is None:
            self._count = workers.automatic(threads, self._cores)
            for number in range(1, self._count):
                self._add_slot(number)
            for listeners in self._sockets.values():
                for spare in listeners[self._count :]:
                    spare.close()
                del listeners[self._count :]
        current = [slot.current for slot in self._slots]
        if all(each is not None and each.loaded for each in current):
            self._ready = True
            for each in current:
                if each is not None:
                    self._changes.join(each)

    def _serves(self, process: Process) -> None:
        process.serving = True
        process.served_at = time.monotonic()
        slot = self._slots[process.slot]
        if slot.successor is process:
            if slot.current is not None:
                self._retire(slot.current)
            slot.current, slot.successor = process, None
        if slot.cover is not None:
            slot.cover.send(channel.Uncover(slot.number))
            slot.cover = None
        if self._ready and self._started is not None and all(s.current and s.current.serving for s in self._slots):
            log.info("server_ready", extra={"url": self._url, "workers": len(self._slots)})
            started, self._started = self._started, None
            started(self._url)

    def _scrape(self, asker: Process, message: channel.Scrape) -> None:
        self._ledger.note(asker.id, message.counts)
        others = [each for each in self._processes.values() if each is not asker and each.loaded]
        for other in others:
            other.send(channel.Count())
        self._scrapes.append(_Scrape(asker, message.number, {other.id for other in others}))

    def _counts(self) -> Counts:
        return self._ledger.sum()

    # -- deaths

    def _ended(self, process: Process) -> None:
        self._listen(process)
        self._relay(process)
        self._forget(process)
        if process.leaving or self._stopping:
            log.info("worker_ended", extra=process.about(how=process.how()))
        slot = self._slots[process.slot]
        if slot.successor is process:
            slot.successor = None
            self._rolling.clear()
            log.error("worker_not_replaced", extra=process.about(how=process.how(), reason=process.reason()))
        elif slot.current is process:
            slot.current = None
            if not self._stopping:
                self._died(slot, process)
        for covered in self._slots:
            if covered.cover is process:
                covered.cover = None
                self._cover(covered)

    def _forget(self, process: Process) -> None:
        del self._processes[process.id]
        self._ledger.ended(process.id)
        for end in (process.channel.end, process.stderr):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)  # type: ignore[arg-type]
        process.close()
        self._scrapes = [scrape for scrape in self._scrapes if scrape.asker is not process]
        for scrape in self._scrapes:
            scrape.missing.discard(process.id)
        self._changes.ended(process)

    def _died(self, slot: Slot, process: Process) -> None:
        wait_s = slot.restarts.died(time.monotonic() - process.served_at if process.served_at else 0.0)
        log.error("worker_died", extra=process.about(how=process.how(), reason=process.reason(), restart_in_s=wait_s))
        if not self._ready and process.failed is not None:
            self._give_up(error_of(process.failed.code, process.failed.message))
        elif not self._ready and slot.restarts.failures >= workers.CRASHES:
            last = process.said or "nothing"
            self._give_up(
                WorkerFailed(
                    f"a worker ended {workers.CRASHES} times before it could answer ({process.how()}); the last it said: {last}"
                )
            )
        elif slot.successor is not None:
            slot.current, slot.successor = slot.successor, None
            self._cover(slot)
        else:
            self._restarted += 1
            slot.start_at = time.monotonic() + wait_s
            self._cover(slot)

    def _cover(self, slot: Slot) -> None:
        """Let another worker accept meanwhile: the one with the fewest such duties."""
        duties = [each.cover.id for each in self._slots if each.cover is not None]
        able = [s.current for s in self._slots if s.current is not None and s.current.serving and s is not slot]
        if self._ready and able and not (slot.current is not None and slot.current.serving):
            slot.cover = min(able, key=lambda process: duties.count(process.id))
            slot.cover.send(channel.Cover(slot.number))

    def _give_up(self, error: FairwayError) -> None:
        self._failure = self._failure or error
        self._stop(0.0)

    # -- ending

    def _stop(self, delay_s: float) -> None:
        """All drain; called again, they stop waiting."""
        if not self._stopping:
            log.info("server_stopping", extra={"delay_s": delay_s})
        self._stopping = True
        self._deaf_at = min(self._deaf_at, time.monotonic() + delay_s + _DEAF_AFTER_S)
        self._rolling.clear()
        for slot in self._slots:
            slot.start_at = None
        for process in self._processes.values():
            process.leaving = True
            process.send(channel.Stop(delay_s if process.serving else 0.0))
            if not process.loaded:
                process.terminate()  # it may be too early in its life to hear
            self._kill_later(process, max(self._settings.grace_s, delay_s))

    def _deafen(self) -> None:
        """By now no worker accepts; who connects is refused, and does not wait for one until all have drained."""
        self._deaf_at = math.inf
        for listeners in self._sockets.values():
            for listener in listeners:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)

    def _retire(self, process: Process) -> None:
        delay_s = min(self._settings.grace_s, max(_RETIRE_S, self._settings.stop_delay_s))
        process.leaving = True
        process.send(channel.Retire(delay_s))
        self._kill_later(process, delay_s + self._settings.grace_s)
        for slot in self._slots:
            if slot.cover is process:
                slot.cover = None
                self._cover(slot)

    def _kill_later(self, process: Process, after_s: float) -> None:
        at = time.monotonic() + after_s + _KILL_AFTER_S
        process.kill_at = at if process.kill_at is None else min(at, process.kill_at)

    def _roll(self) -> None:
        """Replace the next worker, once the one before is replaced."""
        if not self._rolling or not self._ready or any(slot.successor for slot in self._slots):
            return
        self._rolling = [slot for slot in self._rolling if slot.current is not None]  # a new one is as it should be
        slot = next((slot for slot in self._rolling if slot.current is not None and slot.current.serving), None)
        if slot is not None:
            self._rolling.remove(slot)
            slot.successor = self._start_again(slot)
            if slot.successor is None:
                self._rolling.clear()

    # -- signals

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP and self._terminal and not has_terminal():
            number = signal.SIGTERM  # not a request: the terminal was closed
        if number == signal.SIGTERM:
            self._stop(self._settings.stop_delay_s)
        elif number == signal.SIGINT:
            self._stop(0.0)
        elif number == signal.SIGHUP and not self._stopping:
            log.info("workers_replacing", extra={"workers": len(self._slots)})
            self._rolling = list(self._slots)


def _stderr() -> int:
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def _share_log(lock: int) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, QueuedLines):
            handler.share(lock)  # which stays open, for lines that are written as this process ends


def _relay(text: str) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, QueuedLines):
            handler.line(text)
            return
    print(text, file=sys.stderr)  # noqa: T201
