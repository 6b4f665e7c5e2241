"""Protobuf's wire form, as far as answers are written by hand: a message object costs more than a small inference. Pure."""

from __future__ import annotations


def varint(number: int) -> bytes:
    r"""A whole number of 0 or more.

    Examples
    --------
    >>> varint(1), varint(300)
    (b'\x01', b'\xac\x02')
    """
    if number < 0x80:
        return bytes((number,))
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def head(field: int, size: int) -> bytes:
    """What comes before ``size`` bytes of a field that holds bytes, a string or a message."""
    return varint(field << 3 | 2) + varint(size)


def delimited(field: int, data: bytes) -> bytes:
    r"""A field that holds bytes, a string or a message.

    Examples
    --------
    >>> delimited(1, b"digits")
    b'\n\x06digits'
    """
    return head(field, len(data)) + data
