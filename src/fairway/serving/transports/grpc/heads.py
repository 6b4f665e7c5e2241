"""Requests that are alike in all but their values: what comes before the values is understood once."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from fairway.serving.transports.grpc.wireform import head

MAX_HEADS = 256
MAX_HEAD_BYTES = 1024
_RAW_INPUT_CONTENTS = 7


class Plan(msgspec.Struct, frozen=True, eq=False):
    """A request whose only tensor is its last field, from byte ``start`` on, as raw values.

    Its id, if it has one, is from ``id_start`` to ``id_end``.
    """

    model: str
    version: str | None
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    outputs: tuple[str, ...] | None
    start: int
    id_start: int = 0
    id_end: int = 0


class Heads:
    """Plans by the bytes before the values. A client sends the same ones again and again.

    Equal bytes up to the values, but for the id, and equal lengths mean an equal request, whatever the values and the id:
    protobuf reads from left to right, and the bytes before each say how long it is.

    Parameters
    ----------
    kind : message class
        Of the requests.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._by_length: dict[int, tuple[bytes, bytes, Plan]] = {}

    def find(self, message: bytes) -> Plan | None:
        """The plan of a message whose head is known."""
        known = self._by_length.get(len(message))
        if known is None or not message.startswith(known[0]):
            return None
        plan = known[2]
        return plan if not plan.id_end or message.startswith(known[1], plan.id_end) else None

    def remember(self, message: bytes, plan: Plan) -> None:
        """Keep ``plan`` for messages like this one, if the values are its last field, and its head is not long."""
        own = head(_RAW_INPUT_CONTENTS, len(message) - plan.start)
        before = plan.start - len(own)
        if not 0 <= before <= MAX_HEAD_BYTES or message[before : plan.start] != own:
            return
        try:  # only at the border of two fields does a message end well
            rest = self._kind.FromString(message[plan.id_end : before])
        except DecodeError:
            return
        if rest.raw_input_contents or rest.id:
            return
        if len(self._by_length) >= MAX_HEADS and len(message) not in self._by_length:
            del self._by_length[next(iter(self._by_length))]
        first = plan.id_start if plan.id_end else plan.start
        self._by_length[len(message)] = (message[:first], message[plan.id_end : plan.start], plan)
