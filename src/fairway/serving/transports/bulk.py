"""Large bodies, read from the socket straight to where they stay: no pieces, and no parser that cuts them out of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LEAST, _MOST = 2**16, 2**20
"""Bytes of room that are made at once: as much as came before, within these. What is announced and never sent takes none."""
_ROOM = bytes(_MOST)


class Bulk(asyncio.BufferedProtocol):
    """Reads what is left of a body in ``owner``'s place, then gives the connection back.

    Parameters
    ----------
    owner : asyncio.Protocol
        Whose connection it is; it is told of all but data.
    transport : asyncio.Transport
    body : bytearray
        What came already.
    size : int
        Bytes of the whole body.
    whole : callable
        Called once the body is.
    """

    def __init__(
        self,
        owner: asyncio.Protocol,
        transport: asyncio.Transport,
        body: bytearray,
        size: int,
        whole: Callable[[], None],
    ) -> None:
        self._owner, self._transport, self._whole = owner, transport, whole
        self._body, self._size, self._filled = body, size, len(body)
        self.pause_writing, self.resume_writing = owner.pause_writing, owner.resume_writing  # type: ignore[method-assign]
        transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the kernel has as much as it has)
        """Where the next bytes go."""
        if self._filled == len(self._body):
            more = min(self._size - self._filled, max(_LEAST, self._filled), _MOST)
            self._body += memoryview(_ROOM)[:more]
        return memoryview(self._body)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many came."""
        self._filled += nbytes
        if self._filled == self._size:
            self._transport.set_protocol(self._owner)
            self._whole()

    def eof_received(self) -> bool | None:
        """The client will send no more."""
        return self._owner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody is there any more."""
        self._owner.connection_lost(error)
