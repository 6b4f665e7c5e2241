"""A large message on its way: kept as it came, and copied once, when it is whole."""

from __future__ import annotations

from typing import Final

LARGE_BYTES: Final = 65536
"""Messages from here on are kept in pieces."""
_SMALL_BYTES: Final = 4096


class Pieces:
    """Bytes in the order in which they came. What it holds in memory is at most about twice their number.

    Examples
    --------
    >>> pieces = Pieces()
    >>> pieces.add(b"-abc-", 1, 4)
    >>> pieces.join()
    b'abc'
    """

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[memoryview | bytearray] = []

    def add(self, data: bytes | bytearray, start: int, stop: int) -> None:
        """Keep ``data[start:stop]``: as a view, unless that would keep much more than it shows."""
        pieces = self._pieces
        view = memoryview(data)[start:stop]
        if isinstance(data, bytes) and 2 * (stop - start) >= len(data) and stop - start >= _SMALL_BYTES:
            pieces.append(view)
        elif pieces and isinstance(pieces[-1], bytearray):
            pieces[-1] += view
        else:
            pieces.append(bytearray(view))

    def join(self) -> bytes:
        """All of them."""
        return b"".join(self._pieces)
