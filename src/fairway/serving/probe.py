"""Measure one bundle in this process, through the serving core: ``python -m fairway.serving.probe BUNDLE``.

Run by :mod:`fairway.serving.probes` in a fresh process, so that memory and load time are the model's own. Reads its plan, one
line of JSON, from stdin; writes ``ready`` once the model has answered, and waits for another line, so that several begin
together; then writes what it observed, as JSON, to stdout.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import psutil
import uvloop

from fairway.bundle.format import read_bundle
from fairway.core.errors import FairwayError
from fairway.core.messages import InferRequest
from fairway.serving.energy import Rapl
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.models import Models
from fairway.serving.queues import Job
from fairway.serving.routing import Route
from fairway.serving.settings import ServeSettings
from fairway.serving.sharing import SharingScheduler
from fairway.serving.telemetry import Telemetry
from fairway.serving.warmup import made_up_rows, sample_rows, take

READY = b"ready"
_SPIN_S = 0.002
_TAIL_S = 10.0
_SPANS = 10
_ENOUGH = 100
"""Requests that full load should answer, for spans that are not mostly of chance."""
_PATIENCE = 10
"""How many times as long as asked to wait for them."""
_BACK_OFF_S = 0.001
_KNOWN = 32
"""Requests back that one may be repeated from: few, so that a cache of any size still has it."""


class Plan(msgspec.Struct, frozen=True):
    """What to do.

    ``rps``: offered load with Poisson arrivals; ``None``: ``concurrency`` callers, each sending as soon as it is answered.
    ``saturate_s``: how long to let such callers follow the load; 0: not at all. ``serving``: threads of a call and limits
    of the model, as a server would have them. ``cores``: how many of those allowed are used; 0: all. ``equal``: the share of
    requests that count as equal to an earlier one, where answers are kept.
    """

    seconds: float
    rps: float | None
    rows: int
    concurrency: int
    seed: int
    saturate_s: float = 0.0
    serving: ServeSettings = ServeSettings()
    cores: int = 0
    equal: float = 0.0


class Span(msgspec.Struct, frozen=True):
    """A part of the time at full load. ``joules``: of the whole processor; ``None`` where nothing counts them."""

    seconds: float
    answered: int
    cpu_s: float
    joules: float | None


class Observed(msgspec.Struct, frozen=True):
    """What was seen. Latencies of answered requests, from their scheduled arrival; times from the load's start."""

    load_ms: float
    first_ms: float
    memory_mb: float
    latencies_ms: list[float]
    finished_s: list[float]
    failures: int
    first_failure: str
    saturated: list[Span] = []


class _Mark(NamedTuple):
    """Totals at one moment."""

    at_s: float
    answered: int
    cpu_s: float
    joules: float | None

    def until(self, later: _Mark) -> Span:
        joules = None if self.joules is None or later.joules is None else later.joules - self.joules
        return Span(later.at_s - self.at_s, later.answered - self.answered, later.cpu_s - self.cpu_s, joules)


class _Repeats:
    """Names requests so that ``share`` of them equal an earlier one, and all others none: a load's few rows always would.

    Parameters
    ----------
    identify : callable
        Names them as a server does; what that takes is taken here, too.
    """

    def __init__(self, identify: Callable[[Job], bytes], share: float, seed: int) -> None:
        self._identify, self._share = identify, share
        self._random = random.Random(seed)  # noqa: S311 (a load, not a secret)
        self._known: deque[bytes] = deque(maxlen=_KNOWN)
        self._new = count()

    def __call__(self, job: Job) -> bytes:
        key = self._identify(job)
        if self._known and self._random.random() < self._share:
            return self._random.choice(self._known)
        key += next(self._new).to_bytes(8, "little")
        self._known.append(key)
        return key


class _Load:
    """Sends rows of the model's own samples through the core."""

    def __init__(
        self, core: InferenceCore, name: str, plan: Plan, rows: dict[str, np.ndarray[tuple[int, ...], np.dtype]]
    ):
        self._core = core
        self._name = name
        self._plan = plan
        count = min(len(array) for array in rows.values())
        self._feeds = [take(rows, plan.rows, start) for start in range(max(count, 1))]
        self.latencies_ms: list[float] = []
        self.finished_s: list[float] = []
        self.failures = 0
        self.first_failure = ""
        self.out = 0
        self._sent = 0

    async def open_loop(self, rps: float) -> None:
        """Arrivals that do not wait for answers: a slow server meets the queue that it makes.

        References
        ----------
        B. Schroeder, A. Wierman, M. Harchol-Balter, "Open versus closed: a cautionary tale", NSDI 2006.
        """
        rng = np.random.default_rng(self._plan.seed)
        count = max(1, round(self._plan.seconds * rps))
        arrivals = np.cumsum(rng.exponential(1 / rps, count)).tolist()
        began = time.perf_counter()
        for arrival in arrivals:
            due = began + arrival
            while (left := due - time.perf_counter()) > 0:
                # The loop's timers are good to a millisecond only, so the last stretch is spent turning the loop.
                await asyncio.sleep(left - _SPIN_S if left > 2 * _SPIN_S else 0)
            self._send(due, began)
        give_up = time.perf_counter() + _TAIL_S
        while self.out and time.perf_counter() < give_up:
            await asyncio.sleep(0)
        if self.out:
            self.failures += self.out
            self.first_failure = self.first_failure or f"no answer within {_TAIL_S:g} s after the load ended"

    async def closed_loop(self, seconds: float) -> None:
        """As much as it takes, with a fixed number of callers."""
        began = time.perf_counter()
        until = began + seconds
        await self._callers(began, lambda now: now < until)

    async def saturated(self) -> list[Span]:
        """As much as it takes, in spans: of equal length, ten of them, and longer where few requests are answered."""
        meter, marks = Rapl.find(), list[_Mark]()
        running = True

        def mark() -> None:
            joules = meter.joules() if meter is not None else None
            marks.append(_Mark(time.perf_counter(), len(self.finished_s), time.process_time(), joules))

        async def watch() -> None:
            nonlocal running
            ticks = 0
            while ticks < _SPANS or (marks[-1].answered < _ENOUGH and ticks < _SPANS * _PATIENCE):
                await asyncio.sleep(self._plan.saturate_s / _SPANS)
                mark()
                ticks += 1
            running = False

        mark()
        await asyncio.gather(watch(), self._callers(marks[0].at_s, lambda _: running))
        chosen = [marks[round(place)] for place in np.linspace(0, len(marks) - 1, _SPANS + 1)]
        return [one.until(other) for one, other in pairwise(chosen)]

    async def _callers(self, began: float, going_on: Callable[[float], bool]) -> None:
        async def caller() -> None:
            while going_on(now := time.perf_counter()):
                answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                failed = self.failures
                self._send(now, began, answered)
                await answered
                if self.failures > failed:  # a refusal comes at once: let others have the loop
                    await asyncio.sleep(_BACK_OFF_S)

        await asyncio.gather(*(caller() for _ in range(self._plan.concurrency)))

    def _send(self, due: float, began: float, answered: asyncio.Future[None] | None = None) -> None:
        def done(outcome: Outcome) -> None:
            self.out -= 1
            now = time.perf_counter()
            if isinstance(outcome, FairwayError):
                self.failures += 1
                self.first_failure = self.first_failure or str(outcome)
            else:
                self.latencies_ms.append((now - due) * 1e3)
                self.finished_s.append(now - began)
            if answered is not None and not answered.done():
                answered.set_result(None)

        self.out += 1
        feed = self._feeds[self._sent % len(self._feeds)]
        self._sent += 1
        self._core.submit(InferRequest(self._name, feed), done)


async def observe(path: Path, plan: Plan, ready: Callable[[], None] = lambda: None) -> Observed:
    """Load the bundle at ``path`` and, after ``ready`` has returned, put it under load."""
    started = time.perf_counter()
    bundle = read_bundle(path, verify=False)  # whoever measures has just read or written it
    models = Models(plan.serving, telemetry := Telemetry())
    core = InferenceCore(models, telemetry)
    name = bundle.manifest.name
    await models.load(name, "1", lambda: bundle)
    models.point(name, Route("1"))
    front = models.resolve(name, None, None).front
    sharing = front if isinstance(front, SharingScheduler) else None
    if sharing:
        sharing.identify = _Repeats(sharing.identify, plan.equal, plan.seed)
    rows = sample_rows(bundle) or made_up_rows(bundle.manifest.inputs)
    loaded = time.perf_counter()
    await core.infer(InferRequest(name, take(rows, plan.rows)))
    answered = time.perf_counter()
    ready()
    load = _Load(core, name, plan, rows)
    await (load.closed_loop(plan.seconds) if plan.rps is None else load.open_loop(plan.rps))
    unfilled = sharing.cache.max_bytes - sharing.cache.size_bytes if sharing else 0  # a server fills it sooner or later
    memory_mb = (psutil.Process().memory_info().rss + unfilled) / 1e6
    saturated = await _Load(core, name, plan, rows).saturated() if plan.saturate_s else []
    return Observed(
        load_ms=(answered - started) * 1e3,
        first_ms=(answered - loaded) * 1e3,
        memory_mb=memory_mb,
        latencies_ms=load.latencies_ms,
        finished_s=load.finished_s,
        failures=load.failures,
        first_failure=load.first_failure,
        saturated=saturated,
    )


def main() -> None:
    """Read a plan from stdin, write what was observed to stdout."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    if plan.cores and hasattr(os, "sched_setaffinity"):  # not on every system
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan.cores])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            observed = runner.run(observe(Path(sys.argv[1]), plan, _wait_for_the_others))
        except FairwayError as error:
            sys.stderr.write(str(error))
            raise SystemExit(1) from None
    _say(msgspec.json.encode(observed))


def _wait_for_the_others() -> None:
    _say(READY)
    if not sys.stdin.buffer.readline():  # whoever measures has gone
        raise SystemExit(1)


def _say(line: bytes) -> None:
    # With PYTHONUNBUFFERED, sys.stdout.buffer is the raw file, which may write a part only and say so to nobody.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(line + b"\n")


if __name__ == "__main__":
    main()
