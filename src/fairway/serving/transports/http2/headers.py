"""Header blocks: decoded once, then found again while they mean the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from fairway.serving.transports.http2.hpack import Decoder, Lines

_MAX_KEPT: Final = 64
_MAX_KEPT_BYTES: Final = 2048
T = TypeVar("T")


class HeaderBlocks(Generic[T]):
    """The header blocks of one connection.

    While the dynamic table stays as it is, equal blocks decode to equal headers, and clients send few different ones. So
    what ``read`` made of a block is kept until a block alters the table.

    Parameters
    ----------
    read : callable
        Makes what is kept of decoded headers. May raise, and is then asked again for the next such block.
    max_bytes : int
        Of one header list; see :class:`~fairway.serving.transports.http2.hpack.Decoder`.
    """

    __slots__ = ("_decoder", "_read", "kept")

    def __init__(self, read: Callable[[Lines], T], max_bytes: int) -> None:
        self._decoder = Decoder(max_bytes)
        self._read = read
        self.kept: dict[bytes, T] = {}

    def __call__(self, block: bytes) -> T:
        """Decode ``block``. Look into ``kept`` first."""
        lines = self.decode(block)
        found = self._read(lines)
        if not self._decoder.changed and len(block) <= _MAX_KEPT_BYTES:
            if len(self.kept) >= _MAX_KEPT:
                self.kept.clear()
            self.kept[block] = found
        return found

    def decode(self, block: bytes) -> Lines:
        """The lines of a block. Every block has to pass here or be in ``kept``, for the table's sake."""
        lines = self._decoder.decode(block)
        if self._decoder.changed and self.kept:
            self.kept.clear()
        return lines
