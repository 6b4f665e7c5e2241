"""``kill -9`` in the middle of work, many times, in milliseconds each: workers come from a fork server."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from typing import Any

import numpy as np

_PRELOAD = [
    "tests.registry.workers",
    "tests.bundle.test_writing",
    "alembic.command",
    "psycopg",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
]


def fork_server() -> ForkServerContext:
    """A context whose workers start with everything imported. One list for all: a process has only one fork server."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def kill_in_the_middle(
    context: ForkServerContext,
    target: Callable[..., None],
    arguments: Sequence[Any],
    rng: np.random.Generator,
    *,
    steps: int,
    delay_s: float,
) -> None:
    """Run ``target(*arguments, step)``, which calls ``step()`` again and again, and kill it after some of those calls.

    How many (1 to ``steps``) and how long after the last one (up to ``delay_s``) is drawn from ``rng``. Counting calls makes
    progress certain on a slow machine; the delay makes any instruction a place to die.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(target, tuple(arguments), sender), daemon=True)
    process.start()
    sender.close()
    for _ in range(rng.integers(1, steps + 1)):
        receiver.recv()
    time.sleep(rng.uniform(0, delay_s))  # the fault itself, not a wait for anything
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    receiver.close()
    assert process.exitcode == -signal.SIGKILL, "the worker ended before it was killed"


def _run(target: Callable[..., None], arguments: tuple[Any, ...], sender: Any) -> None:
    target(*arguments, lambda: sender.send(None))
