"""Changes made on every worker, as the watching process sees them: one after the other, each by all or by none."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from fairway.serving import channel
from fairway.serving.control import Change, Journal
from fairway.serving.processes import Process

log = logging.getLogger(__name__)

_MAX_WAITING = 256
_LOAD_S = 900.0
_LIVE_S = 120.0


class _Round:
    """One change: first everybody makes it ready, then it is settled, and everybody goes live or undoes it.

    Attributes
    ----------
    members : dict of int to Process
        Who takes part and is not done.
    waiting : set of int
        Who has not answered in this step.
    done : int
        How many have brought it to its end, whether live or undone.
    failure : Made or None
        The first that could not make it.
    settled, live : bool
        The first step is over; everybody goes live.
    """

    def __init__(self, change: Change, asker: Process | None = None, number: int = 0) -> None:
        self.change = change
        self.asker = asker
        self.number = number
        self.id = 0
        self.members: dict[int, Process] = {}
        self.waiting: set[int] = set()
        self.done = 0
        self.failure: channel.Made | None = None
        self.settled = self.live = False
        self.ends = 0.0


class _Joining:
    """A new worker is made like the others."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ends = 0.0


class Changes:
    """The changes of a server with several workers.

    Parameters
    ----------
    members : callable
        Gives the workers that have :attr:`~fairway.serving.processes.Process.joined`.
    """

    def __init__(self, members: Callable[[], Iterable[Process]]) -> None:
        self._members = members
        self._journal = Journal()
        self._ids = itertools.count(1)
        self._waiting: deque[_Round | _Joining] = deque()
        self._now: _Round | _Joining | None = None

    # -- what is to be done

    def ask(self, asker: Process, message: channel.Ask) -> None:
        """A worker's caller wants a change."""
        if not asker.joined or asker.leaving:
            asker.send(
                channel.Outcome(message.number, "model_not_ready", "the server is starting or stopping; try again soon")
            )
        elif len(self._waiting) >= _MAX_WAITING:
            text = f"{len(self._waiting)} changes are waiting to be made; slow down"
            asker.send(channel.Outcome(message.number, "overloaded", text))
        else:
            self._add(_Round(message.change, asker, message.number))

    def join(self, process: Process) -> None:
        """A new worker has loaded what the server was started with: let it catch up, then go."""
        self._add(_Joining(process))

    def _add(self, task: _Round | _Joining) -> None:
        self._waiting.append(task)
        self._next()

    def _next(self) -> None:
        while self._now is None and self._waiting:
            self._now = task = self._waiting.popleft()
            task.ends = time.monotonic() + _LOAD_S
            if isinstance(task, _Round):
                self._begin(task)
            elif changes := tuple(self._journal.changes()):
                task.process.send(channel.CatchUp(changes))
            else:
                self._joined(task)

    def _begin(self, task: _Round) -> None:
        task.id = next(self._ids)
        task.members = {process.id: process for process in self._members()}
        task.waiting = set(task.members)
        for process in task.members.values():
            process.send(channel.Make(task.id, task.change))
        self._step(task)

    # -- what workers say

    def heard(self, process: Process, message: channel.MadeReady | channel.Made | channel.CaughtUp) -> None:
        """An answer."""
        task = self._now
        if isinstance(message, channel.CaughtUp):
            if isinstance(task, _Joining) and task.process is process:
                for name in message.lost:  # its owner has removed it, so no new worker can ever have it again
                    log.warning("region_lost", extra={"region": name})
                    self._waiting.appendleft(_Round(Change("unregister", name)))
                self._joined(task)
        elif isinstance(task, _Round) and message.id == task.id and process.id in task.members:
            if isinstance(message, channel.Made):
                self._made(task, process, message)
            task.waiting.discard(process.id)
            self._step(task)

    def ended(self, process: Process) -> None:
        """A worker is no more: nobody waits for it."""
        self._waiting = deque(t for t in self._waiting if not (isinstance(t, _Joining) and t.process is process))
        task = self._now
        if isinstance(task, _Joining) and task.process is process:
            self._now = None
        elif isinstance(task, _Round) and process.id in task.members:
            del task.members[process.id]
            task.waiting.discard(process.id)
            self._step(task)
        self._next()

    def check(self, now: float) -> None:
        """Give up what takes too long."""
        task = self._now
        if task is None or now < task.ends:
            return
        if isinstance(task, _Joining):
            self._kill(task.process, "it did not catch up with the others in time")
            task.ends = now + _LIVE_S
        elif task.settled:
            for id in task.waiting:
                self._kill(task.members[id], "it did not make a change in time")
            task.ends = now + _LIVE_S
        else:
            text = f"the change was not ready on all workers after {_LOAD_S:g} s; it was undone"
            task.failure = task.failure or channel.Made(task.id, "model_not_ready", text)
            task.waiting.clear()
            self._step(task)

    # -- one change

    def _made(self, task: _Round, process: Process, message: channel.Made) -> None:
        del task.members[process.id]
        if not message.code:
            task.done += 1
        elif not process.leaving:
            task.failure = task.failure or message
            if task.live:  # it was ready, and could not all the same: its successor will be as the others are
                self._kill(process, message.message)

    def _step(self, task: _Round) -> None:
        """Go on if nobody is waited for."""
        if task.waiting:
            return
        if not task.settled:
            task.settled = True
            task.ends = time.monotonic() + _LIVE_S
            task.live = task.failure is None
            if task.live:
                self._journal.note(task.change)
            task.waiting = set(task.members)
            for process in task.members.values():
                process.send(channel.Settle(task.id, task.live))
            if task.waiting:
                return
        self._now = None
        self._tell(task)
        self._next()

    def _tell(self, task: _Round) -> None:
        if task.asker is None:
            return
        code = text = ""
        if task.failure is not None:
            code, text = task.failure.code, task.failure.message
            if task.live:
                text += " (on one worker, which is replaced; the others have made the change)"
            elif task.done:
                text += " (on one worker, so it was undone on all)"
        task.asker.send(channel.Outcome(task.number, code, text))

    def _joined(self, task: _Joining) -> None:
        self._now = None
        task.process.joined = True
        task.process.send(channel.Go())
        self._next()

    def _kill(self, process: Process, reason: str) -> None:
        log.error("worker_killed", extra={"worker": process.slot, "worker_pid": process.pid, "reason": reason})
        process.kill()
