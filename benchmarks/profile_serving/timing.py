"""Timing of parts, per request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

CONNECTIONS = 64
REPEATS = 300


class Part(msgspec.Struct, frozen=True):
    """Microseconds per request. ``within``: it is a part of the one before, not another."""

    name: str
    us: float
    within: bool = False


def timed(once: Callable[[], Any], times: int = 200, repeats: int = REPEATS // 3) -> float:
    """Microseconds of one call."""
    taken = []
    for _ in range(repeats):
        started = time.thread_time_ns()
        for _ in range(times):
            once()
        taken.append((time.thread_time_ns() - started) / times)
    return min(taken) / 1e3


async def steps_timed(*steps: Callable[[], Awaitable[Any] | None], repeats: int = REPEATS) -> list[float]:
    """Microseconds per request of steps that follow each other, each for all connections; waited for where it is a wait."""
    taken: list[list[int]] = []
    for _ in range(repeats):
        times = []
        for step in steps:
            started = time.thread_time_ns()
            waited = step()
            if waited is not None:
                await waited
            times.append(time.thread_time_ns() - started)
        taken.append(times)
    return [min(times) / CONNECTIONS / 1e3 for times in zip(*taken, strict=True)]


class Transport(asyncio.Transport):
    """Takes what is written, and tells nobody."""

    def write(self, data: Any) -> None: ...
    def writelines(self, list_of_data: Any) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
