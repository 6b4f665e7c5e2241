"""Sockets to listen on: one for a process, or one for each of several workers on the same port."""

from __future__ import annotations

import errno
import socket

from fairway.core.errors import InvalidConfig

BACKLOG = 2048
"""Connections that may wait to be accepted (the kernel may allow fewer)."""


def bind(host: str, port: int) -> socket.socket:
    """A socket on a port that nobody else has; port 0 lets the kernel pick one.

    Raises
    ------
    InvalidConfig
        If the port is taken, or the address is not one of this machine.
    """
    listener = _socket(host)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from None
    except OverflowError:
        listener.close()
        raise InvalidConfig(
            f"{port} is not a port; set one from 1 to 65535 in [serve], or 0 for any free one"
        ) from None
    return listener


def bind_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """``count`` sockets on one port, between which the kernel spreads connections. The first listens already.

    Only that one is bound while it may not share the port, and listens before it may: so a second server on the same port
    is refused, though both would agree to share.
    """
    first = bind(host, port)
    made = [first]
    try:
        first.listen(BACKLOG)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            another = _socket(host)
            made.append(another)
            another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            another.bind(first.getsockname())
    except OSError as error:
        for listener in made:
            listener.close()
        raise _refused(host, port, error) from None
    return made


def reachable(host: str) -> str:
    """A host to connect to, for one to listen on.

    Examples
    --------
    >>> reachable("0.0.0.0"), reachable("::"), reachable("10.0.0.7")
    ('127.0.0.1', '[::1]', '10.0.0.7')
    """
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (it is replaced)
    return f"[{host}]" if ":" in host else host


def _socket(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    return listener


def _refused(host: str, port: int, error: OSError) -> InvalidConfig:
    if error.errno == errno.EADDRINUSE:
        return InvalidConfig(
            f"port {port} on {host} is taken by another process; stop it, or set another port in [serve] (0: any free one)"
        )
    return InvalidConfig(f"cannot listen on {host}, port {port}: {error.strerror}; set host and port in [serve]")
