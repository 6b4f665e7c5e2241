"""One spelling for class labels, wherever they are read from."""

from __future__ import annotations


def as_label(value: object) -> str:
    """A label's text: whole numbers without a fraction, truth values as 0 and 1, bytes as UTF-8.

    Examples
    --------
    >>> as_label(3.0), as_label(True), as_label(b"cat"), as_label(0.5)
    ('3', '1', 'cat', '0.5')
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    item = value.item() if hasattr(value, "item") else value
    if isinstance(item, bool):
        return str(int(item))
    if isinstance(item, float) and item.is_integer():
        return str(int(item))
    return str(item)
