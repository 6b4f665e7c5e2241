"""The requests that wait for one version's engine, and the batches that they form."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from fairway.core.errors import Overloaded
from fairway.serving.batches import BatchingSettings
from fairway.serving.forecast import Forecast
from fairway.serving.lengths import Length, like
from fairway.serving.queues import Job, Line, Part, Piece, Ranked

_MAX_DEAD = 64


class Backlog:
    """Waiting requests, in one line for each signature: those whose signatures differ never share a call.

    Parameters
    ----------
    settings : BatchingSettings
    forecast : Forecast
    expired : callable
        Whether a request's deadline has passed; if so it has been answered, and :meth:`left`.
    clock : callable
        Seconds.

    Attributes
    ----------
    requests, rows : int
        That wait, without those who left.
    level_rows : list of int
        The same rows by priority level; empty without levels.
    lines : dict of signature to Line
        None is empty, but all in it may have left.
    """

    def __init__(
        self,
        settings: BatchingSettings,
        forecast: Forecast,
        *,
        expired: Callable[[Job], bool],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._forecast = forecast
        self._expired = expired
        self._clock = clock
        self._line: Callable[..., Line] = Ranked if settings.priority_levels else deque
        self._dead = 0
        self.requests = 0
        self.rows = 0
        self.level_rows = [0] * settings.priority_levels
        self.lines: dict[Hashable, Line] = {}

    def admit(self, rows: int, signature: Hashable, timeout_s: float | None, level: int) -> None:
        """Raise :class:`Overloaded` unless there is room, and time, for ``rows`` more."""
        settings = self._settings
        ahead = sum(self.level_rows[: level + 1]) if settings.priority_levels else self.rows
        if self.requests >= settings.max_requests or self.rows + rows > settings.max_rows:
            reason = "; slow down, or add replicas"
        elif ahead and ahead + rows > self._forecast.admission.room:
            reason = ", which takes too long; slow down, or add replicas"
        elif timeout_s is not None and (needs_s := self._forecast.finish_s(ahead, rows, signature)) > timeout_s:
            reason = (
                f", so this one would take about {needs_s * 1e3:.0f} ms, and its timeout is {timeout_s * 1e3:.0f} ms; "
                "allow more time, slow down, or add replicas"
            )
        else:
            return
        waiting = f"{self.requests} requests with {self.rows} rows are waiting already"
        raise Overloaded(waiting + reason, self._forecast.retry_s(self.rows, signature))

    def add(self, job: Job, signature: Hashable) -> None:
        """A request waits from now on."""
        line = self.lines.get(signature)
        if line is None:
            line = self.lines[signature] = self._line()
        line.append(job)
        job.queued = True
        self.requests += 1
        self.rows += job.rows
        if self.level_rows:
            self.level_rows[job.level] += job.rows

    def left(self, job: Job) -> None:
        """A request that is settled waits no more, or what is left of it; it stays in its line until it is met there."""
        if not job.taken:
            job.feed = {}  # it may lie in its line until the engine is free
        job.queued = False
        left = job.rows - job.taken
        self.requests -= 1
        self.rows -= left
        if self.level_rows:
            self.level_rows[job.level] -= left
        self._dead += 1

    def next(self) -> Hashable:
        """The signature of the line whose first request is the next one."""
        if len(self.lines) == 1:
            return next(iter(self.lines))
        return min(self.lines, key=lambda signature: self.lines[signature][0].rank)

    def form(self, signature: Hashable) -> list[Piece]:
        """Take the next batch from one queue. A request is only cut if it is larger than any batch may be."""
        queue = self.lines[signature]
        batching = self._settings.batching
        limit = self._settings.max_batch
        levels = self.level_rows
        pieces: list[Piece] = []
        rows = 0
        due: float | None = None
        while queue and rows < limit:
            job = queue[0]
            deadline = job.deadline
            if job.settled or (deadline is not None and self._expired(job)):
                queue.popleft()
                self._dead -= 1
                continue
            left = job.rows - job.taken
            if not batching:
                limit = left
            take = min(left, limit - rows)
            if take < left and job.rows <= limit:
                break
            if deadline is not None and (due is None or deadline < due):
                due = deadline
            if due is not None and pieces and self._too_late(due - self._clock(), rows, take, signature):
                break
            rows += take
            self.rows -= take
            if levels:
                levels[job.level] -= take
            pieces.append(job if take == job.rows else Part(job, job.taken, take))
            if take == left:
                queue.popleft()
                job.queued = False
                self.requests -= 1
            job.taken += take
        if self._forecast.length is not None and len(pieces) > 1:
            pieces = self._alike(pieces, queue, self._forecast.length, signature)
        if not queue:
            del self.lines[signature]
        return pieces

    def _too_late(self, left_s: float, rows: int, more: int, signature: Hashable) -> bool:
        """Whether ``more`` rows would let a batch miss a deadline that it keeps without them."""
        return self._forecast.call_s(rows + more, signature) > left_s >= self._forecast.call_s(rows, signature)

    def _alike(self, pieces: list[Piece], queue: Line, length: Length, signature: Hashable) -> list[Piece]:
        """Those that should run with the first one; the others go back to the front of their line."""
        jobs = [piece for piece in pieces if isinstance(piece, Job)]
        if len(jobs) < len(pieces):
            return pieces
        lengths = [length(job.feed) for job in jobs]
        stay = like(lengths, [job.rows for job in jobs], self._forecast.curve(signature))
        if len(stay) == len(jobs):
            return pieces
        kept = set(stay)
        back = [job for place, job in enumerate(jobs) if place not in kept]
        for job in back:
            job.taken, job.queued = 0, True
            self.requests += 1
            self.rows += job.rows
            if self.level_rows:
                self.level_rows[job.level] += job.rows
        queue.extendleft(reversed(back))
        return [job for place, job in enumerate(jobs) if place in kept]

    def bury(self) -> None:
        """Drop those who left from the lines, where they would otherwise lie until the engine is free; if they are many.

        Not while a batch is being formed: it would go on with the old line.
        """
        if self._dead <= max(_MAX_DEAD, self.requests):
            return
        for signature, queue in list(self.lines.items()):
            alive = [job for job in queue if not job.settled]
            if alive:
                self.lines[signature] = self._line(alive)
            else:
                del self.lines[signature]
        self._dead = 0
