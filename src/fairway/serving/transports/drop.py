"""The end of a connection whose client does not take what it is sent."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

_AT_ONCE = struct.pack("ii", 1, 0)


def drop(transport: Any) -> None:
    """Close at once, and have the kernel forget what was not taken: it would keep megabytes, and offer them for minutes."""
    with suppress(OSError, AttributeError):  # closed already, or no socket
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
