"""Signals of a process that waits in a selector: told there, between two events, and not in the middle of anything."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from types import FrameType


@contextlib.contextmanager
def received(
    selector: selectors.BaseSelector, numbers: Sequence[signal.Signals], told: Callable[[int], None]
) -> Iterator[None]:
    """While this lasts, let ``selector`` have an entry whose data, when called, calls ``told`` for each signal that came."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    def came() -> None:
        for number in ours.recv(4096):
            told(number)

    def ignore(_: int, __: FrameType | None) -> None:
        """The wake-up descriptor is told."""

    selector.register(ours, selectors.EVENT_READ, came)
    before = {number: signal.signal(number, ignore) for number in numbers}
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()


def has_terminal() -> bool:
    """Whether a terminal controls this process; SIGHUP says that it was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
