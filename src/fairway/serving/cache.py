"""Answers that are kept, so that an equal request need not run again. Pure: no clock, no loop."""

from __future__ import annotations

from collections import OrderedDict

from fairway.core.tensors import Tensor, Tensors

_OVERHEAD = 512
"""Bytes of an entry besides its data: key, names, array objects."""


class ResponseCache:
    """Answers by the digest of their request; those least recently used go first.

    Parameters
    ----------
    max_bytes : int
        What all answers may take.

    Examples
    --------
    >>> import numpy as np
    >>> cache = ResponseCache(2000)
    >>> for key in (b"a", b"b", b"c", b"d"):
    ...     cache.put(key, {"y": np.zeros(1)})
    >>> cache.get(b"a") is None, sorted(cache.get(b"d"))
    (True, ['y'])
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[Tensors, int]] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: bytes) -> Tensors | None:
        """The answer, whose arrays are read-only, or ``None``."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: bytes, answer: Tensors) -> None:
        """Keep an answer that nobody will change, unless it alone is larger than the cache."""
        size = _OVERHEAD + len(key) + sum(map(_bytes_of, answer.values()))
        if size > self.max_bytes or key in self._entries:
            return
        self._entries[key] = (answer, size)
        self.size_bytes += size
        while self.size_bytes > self.max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.size_bytes -= freed

    def __len__(self) -> int:
        return len(self._entries)


def private(feed: Tensors) -> Tensors:
    """A copy that shares nothing with the buffers of a connection or of the engine, and that nobody can change."""
    return {name: _frozen(array) for name, array in feed.items()}


def _frozen(array: Tensor) -> Tensor:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _bytes_of(array: Tensor) -> int:
    held = sum(map(len, array.ravel().tolist())) if array.dtype.kind == "O" else 0
    return int(array.nbytes) + held + 33 * array.size * (array.dtype.kind == "O")
