"""What a client does not take of its answers: how much of it the kernel holds, and the end of its connection."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import Any

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows
    ioctl = None  # type: ignore[assignment]

_AT_ONCE = struct.pack("ii", 1, 0)


def in_kernel(transport: Any) -> int:
    """Bytes that the kernel holds until the client takes them; what stands for the end is one of its own."""
    connected = transport.get_extra_info("socket")
    if ioctl is None or connected is None or connected.fileno() < 0:
        return 0
    queued = ioctl(connected.fileno(), TIOCOUTQ, bytes(4))
    return max(0, int.from_bytes(queued, sys.byteorder) - 1)


def drop(transport: Any) -> None:
    """Close at once, and have the kernel forget what was not taken: it would keep megabytes, and offer them for minutes."""
    with suppress(OSError, AttributeError):  # closed already, or no socket
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
