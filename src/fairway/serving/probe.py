"""Measure one bundle in this process, through the serving core: ``python -m fairway.serving.probe BUNDLE < plan``.

Run by :mod:`fairway.serving.performance` in a fresh process, so that memory and load time are the model's own. Writes one
JSON object to stdout.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import uvloop

from fairway.bundle.format import read_bundle
from fairway.core.errors import FairwayError
from fairway.core.messages import InferRequest
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.models import Models
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.serving.warmup import made_up_rows, sample_rows, take

_SPIN_S = 0.002
_TAIL_S = 10.0


class Plan(msgspec.Struct, frozen=True):
    """What to do.

    ``rps``: offered load with Poisson arrivals; ``None``: ``concurrency`` callers, each sending as soon as it is answered.
    """

    seconds: float
    rps: float | None
    rows: int
    concurrency: int
    seed: int


class Observed(msgspec.Struct, frozen=True):
    """What was seen. Latencies of answered requests, from their scheduled arrival; times from the load's start."""

    load_ms: float
    memory_mb: float
    latencies_ms: list[float]
    finished_s: list[float]
    failures: int
    first_failure: str


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

    async def closed_loop(self) -> None:
        """As much as it takes, with a fixed number of callers."""
        began = time.perf_counter()
        until = began + self._plan.seconds

        async def caller() -> None:
            while (now := time.perf_counter()) < until:
                answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._send(now, began, answered)
                await answered

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


async def observe(path: Path, plan: Plan) -> Observed:
    """Load the bundle at ``path`` and put it under load."""
    started = time.perf_counter()
    bundle = read_bundle(path, verify=False)  # whoever measures has just read or written it
    models = Models(ServeSettings(), telemetry := Telemetry())
    core = InferenceCore(models, telemetry)
    name = bundle.manifest.name
    await models.load(name, "1", lambda: bundle)
    rows = sample_rows(bundle) or made_up_rows(bundle.manifest.inputs)
    await core.infer(InferRequest(name, take(rows, plan.rows)))
    load_ms = (time.perf_counter() - started) * 1e3
    load = _Load(core, name, plan, rows)
    await (load.closed_loop() if plan.rps is None else load.open_loop(plan.rps))
    memory_mb = psutil.Process().memory_info().rss / 1e6
    return Observed(load_ms, memory_mb, load.latencies_ms, load.finished_s, load.failures, load.first_failure)


def main() -> None:
    """Read a plan from stdin, write what was observed to stdout."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            observed = runner.run(observe(Path(sys.argv[1]), plan))
        except FairwayError as error:
            sys.stderr.write(str(error))
            raise SystemExit(1) from None
    # With PYTHONUNBUFFERED, sys.stdout.buffer is the raw file, which may write a part only and say so to nobody.
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.write(msgspec.json.encode(observed))


if __name__ == "__main__":
    main()
