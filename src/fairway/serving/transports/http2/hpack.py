"""HPACK, the decoding half (RFC 7541).

Huffman codes and the static table are those of the library ``hpack``. Its decoder is not used: it costs 20 to 60 µs for a
request's headers, this one 3 to 6, and this one says whether a block altered the dynamic table. The tests hold one against
the other.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from hpack import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from fairway.serving.transports.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault

Lines: TypeAlias = list[tuple[bytes, bytes]]

_STATIC: Final = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
_TABLE_BYTES: Final = 4096
_LINE_BYTES: Final = 32
_KEPT_STRINGS: Final = 256
_KEPT_STRING_BYTES: Final = 128


class Decoder:
    """Decodes the header blocks of one connection, in their order.

    Parameters
    ----------
    max_bytes : int
        Of one header list, as RFC 9113 counts it: names, values and 32 bytes for each line. Checked line by line, because a
        small block can stand for a huge list.
    """

    __slots__ = ("_bytes", "_capacity", "_max_bytes", "_strings", "_table", "changed")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._table: Lines = []  # newest first
        self._bytes = 0
        self._capacity = _TABLE_BYTES
        self._strings: dict[bytes, bytes] = {}
        self.changed = False

    def decode(self, block: bytes) -> Lines:
        """The lines of ``block``; afterwards ``changed`` says whether it altered the dynamic table.

        Raises
        ------
        ConnectionFault
            If the block is damaged or its list too large. The decoder is of no more use then.
        """
        try:
            return self._decode(block)
        except IndexError:
            raise _damaged("is truncated") from None
        except HPACKError:
            raise _damaged("has a wrong Huffman code") from None

    def _decode(self, block: bytes) -> Lines:
        lines: Lines = []
        at, end, left = 0, len(block), self._max_bytes
        self.changed = False
        while at < end:
            first = block[at]
            at += 1
            if first >= 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                line = self._line(index)
            elif 0x20 <= first < 0x40:
                if lines:
                    raise _damaged("alters the table's size after its first line")
                size, at = _integer(block, at, 0x1F) if first == 0x3F else (first & 0x1F, at)
                self._resize(size)
                continue
            else:
                line, at = self._literal(block, first, at)
                if first >= 0x40:
                    self._insert(line)
            left -= len(line[0]) + len(line[1]) + _LINE_BYTES
            if left < 0:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "the request's headers are far too large")
            lines.append(line)
        return lines

    def _literal(self, block: bytes, first: int, at: int) -> tuple[tuple[bytes, bytes], int]:
        mask = 0x3F if first >= 0x40 else 0x0F
        index = first & mask
        if index == mask:
            index, at = _integer(block, at, mask)
        if index:
            name = self._line(index)[0]
        else:
            name, at = self._string(block, at)
        value, at = self._string(block, at)
        return (name, value), at

    def _string(self, block: bytes, at: int) -> tuple[bytes, int]:
        first = block[at]
        at += 1
        size = first & 0x7F
        if size == 0x7F:
            size, at = _integer(block, at, 0x7F)
        stop = at + size
        if stop > len(block):
            raise IndexError
        code = block[at:stop]
        return (code if first < 0x80 else self._huffman(code)), stop

    def _huffman(self, code: bytes) -> bytes:
        kept = self._strings.get(code)
        if kept is None:
            kept = bytes(decode_huffman(code))
            if len(code) <= _KEPT_STRING_BYTES:
                if len(self._strings) >= _KEPT_STRINGS:
                    self._strings.clear()
                self._strings[code] = kept
        return kept

    def _line(self, index: int) -> tuple[bytes, bytes]:
        if 1 <= index <= len(_STATIC):
            return _STATIC[index - 1]
        if index == 0 or index > len(_STATIC) + len(self._table):
            raise _damaged(f"refers to line {index}, which is not there")
        return self._table[index - len(_STATIC) - 1]

    def _insert(self, line: tuple[bytes, bytes]) -> None:
        self.changed = True
        self._table.insert(0, line)
        self._bytes += len(line[0]) + len(line[1]) + _LINE_BYTES
        self._evict()

    def _resize(self, size: int) -> None:
        if size > _TABLE_BYTES:
            raise _damaged("asks for a larger table than this server allows")
        self.changed = True
        self._capacity = size
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._capacity:
            name, value = self._table.pop()
            self._bytes -= len(name) + len(value) + _LINE_BYTES


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """What follows a prefix that is all ones (RFC 7541, 5.1)."""
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _damaged("has too large a number")


def _damaged(what: str) -> ConnectionFault:
    return ConnectionFault(COMPRESSION_ERROR, f"the header block {what}")
