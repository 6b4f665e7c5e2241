"""How many workers, how many threads each, and when a dead one is started anew. Pure decisions, and what the kernel allows."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

from fairway.serving.settings import ServeSettings

CRASHES = 3
"""A server whose worker has died so often, without any having ever been ready, gives up."""

_STEADY_S = 10.0
_BACK_OFF_S = (0.1, 10.0)
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = _CPU_MAX) -> int:
    """Cores that this process may use: by its affinity, and by the CPU quota of its container (cgroup v2), rounded up."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        allowed = os.cpu_count() or 1
    try:
        most, period = quota.read_text().split()
        return allowed if most == "max" else max(1, min(allowed, math.ceil(int(most) / int(period))))
    except (OSError, ValueError):
        return allowed


def engine_threads(bundled: int, *, setting: int | None, workers: int, cores: int) -> int:
    """Threads of one engine call, so that workers times threads is no more than there are cores, unless set otherwise.

    Parameters
    ----------
    bundled : int
        What the bundle says; 0: every core.
    setting : int or None
        ``[serve] threads``.
    workers : int
        Worker processes.
    cores : int

    Examples
    --------
    >>> engine_threads(4, setting=None, workers=1, cores=8)  # as the bundle says
    4
    >>> engine_threads(4, setting=None, workers=4, cores=8)  # its share
    2
    >>> engine_threads(4, setting=6, workers=4, cores=8)
    6
    """
    if setting is not None:
        return setting
    if workers <= 1:
        return bundled
    return max(1, min(bundled or cores, cores // workers))


def threads_here(bundled: int, settings: ServeSettings) -> int:
    """Threads of one engine call in a process with these settings. ``bundled``: what the bundle says."""
    workers = 1 if settings.workers == "auto" else settings.workers  # the first of as many as its threads will allow
    return engine_threads(bundled, setting=settings.threads, workers=workers, cores=cores())


def automatic(threads: int, cores: int) -> int:
    """Workers for ``auto``: as many as there are cores for the threads (0: every core) of one engine call.

    Examples
    --------
    >>> automatic(1, cores=8), automatic(3, cores=8), automatic(0, cores=8)
    (8, 2, 1)
    """
    return max(1, cores // (threads or cores))


def wanted(workers: int | Literal["auto"], threads: int | None, cores: int) -> int | None:
    """Workers by the settings alone; ``None``: the models' own threads decide."""
    if workers in (0, "auto"):
        return None if threads is None else automatic(threads, cores)
    return int(workers)


class Restarts:
    """When one worker is started again: at once after a steady life, later and later if it keeps dying."""

    def __init__(self) -> None:
        self.failures = 0

    def died(self, served_s: float) -> float:
        """Seconds to wait, after a worker that had been serving for ``served_s`` (0: it never was).

        Examples
        --------
        >>> restarts = Restarts()
        >>> [restarts.died(served_s) for served_s in (60, 0, 0, 0, 60)]
        [0.0, 0.1, 0.2, 0.4, 0.0]
        """
        self.failures = 1 if served_s >= _STEADY_S else self.failures + 1
        least, most = _BACK_OFF_S
        return 0.0 if self.failures == 1 else min(most, least * 2.0 ** min(self.failures - 2, 30))
