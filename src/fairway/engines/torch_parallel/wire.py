"""What the engine and its workers tell each other: a head in JSON, then arrays as plain bytes. Nothing is pickled."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import numpy as np

from fairway.core.tensors import Datatype, Tensor

Wire = Connection


class Settings(msgspec.Struct, frozen=True):
    """All that a worker is told as it starts."""

    path: str
    parallel: str
    ranks: int
    rank: int
    device: str
    precision: str
    threads: int
    timeout_s: float
    file: int = -1
    """The program's descriptor, which a worker inherits: by its path it may be gone, or be another, by then."""
    store: str = ""
    """A file that nobody else may write: where the ranks find each other."""


def put(wire: Wire, head: dict[str, Any], arrays: Sequence[tuple[Datatype, Tensor]] = ()) -> None:
    """Write one message."""
    wire.send_bytes(msgspec.json.encode({**head, "arrays": [(datatype, array.shape) for datatype, array in arrays]}))
    for _, array in arrays:
        wire.send_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def take(wire: Wire) -> tuple[dict[str, Any], list[Tensor]]:
    """Read one message. Raises :class:`EOFError` or :class:`OSError` if the other side is gone."""
    head: dict[str, Any] = msgspec.json.decode(wire.recv_bytes())
    arrays: list[Tensor] = []
    for name, shape in head.pop("arrays"):
        content = bytearray(wire.recv_bytes())
        kind = Datatype(name).dtype
        arrays.append(np.frombuffer(content, kind).reshape(shape) if content else np.empty(shape, kind))
    return head, arrays
