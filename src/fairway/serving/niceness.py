"""Threads that give way: on Linux each has a niceness of its own."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

LOADING = 5
"""About a third of the weight of the event loop's thread."""
RUNNING = 10
"""About a tenth: a long call of one model must not take the core from the loop, which answers the short ones."""


def give_way(by: int) -> None:
    """Make the calling thread ``by`` nicer than the process. A thread that it starts gives way as much."""
    with suppress(OSError, AttributeError):  # not Linux, or not allowed
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(os.getpriority(os.PRIO_PROCESS, 0) + by, 19))
