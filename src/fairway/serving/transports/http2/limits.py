"""What one client, and all of them together, may cost."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Limits that HTTP/2 needs beside those of :class:`~fairway.serving.settings.ServeSettings`.

    Attributes
    ----------
    streams : int
        Calls that one connection may have open at a time (SETTINGS_MAX_CONCURRENT_STREAMS); more are refused.
    frame_bytes : int
        Largest frame taken (SETTINGS_MAX_FRAME_SIZE), so also what is held of an unfinished one.
    stream_window : int
        Bytes that a client may send on one stream ahead of its handler.
    connection_window : int
        The same, for all streams of one connection.
    continuations : int
        Frames that one block of headers may be spread over.
    held_bytes : int
        What all unfinished messages and unread ones of the server may hold together. Above it, calls that would hold more
        fail with RESOURCE_EXHAUSTED. 0 stands for four messages of the largest size.
    unsent_bytes : int
        Answers that one client may leave unread; above it, its new calls are refused. 0 stands for a message of the largest
        size. Above four times that, answers become RESOURCE_EXHAUSTED.
    resets, resets_per_s : float
        Streams that may end by a reset, from either side: so many at once, so many per second in the long run.
    controls, controls_per_s : float
        The same for frames that carry no call onward: PING, SETTINGS, PRIORITY, empty DATA, unknown ones.
    dribbles, dribbles_per_s : float
        The same for window updates of fewer than 256 bytes.
    """

    streams: int = 1024
    frame_bytes: int = 65536
    stream_window: int = 2**20
    connection_window: int = 16 * 2**20
    continuations: int = 16
    held_bytes: int = 0
    unsent_bytes: int = 0
    resets: float = 1000
    resets_per_s: float = 100
    controls: float = 1000
    controls_per_s: float = 200
    dribbles: float = 10_000
    dribbles_per_s: float = 1000


class Bucket:
    """So many at once, so many per second in the long run.

    Parameters
    ----------
    size : float
        What it holds when full, which it is at first.
    per_s : float
        What flows in.

    Examples
    --------
    >>> bucket = Bucket(2, 1)
    >>> [bucket.take(0.0), bucket.take(0.0), bucket.take(0.0), bucket.take(1.0)]
    [True, True, False, True]
    """

    __slots__ = ("_level", "_per_s", "_size", "_when")

    def __init__(self, size: float, per_s: float) -> None:
        self._size = size
        self._per_s = per_s
        self._level = size
        self._when = 0.0

    def take(self, now: float) -> bool:
        """Take one at time ``now`` (seconds, any clock that does not go back); ``False`` if there is none."""
        self._level = min(self._size, self._level + (now - self._when) * self._per_s)
        self._when = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class Held:
    """Bytes of requests that the server holds, over all connections."""

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
