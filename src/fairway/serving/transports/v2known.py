"""Binary requests that are alike in all but their values and id: their JSON is understood once.

Whatever it gives, ``v2binary`` would give as well. All others, and every error, are ``v2binary``'s.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np

from fairway.core.messages import InferRequest
from fairway.core.tensors import Tensor
from fairway.serving.transports.v2 import Reply

MAX_PLANS = 256
MAX_HEADER_BYTES = 2048
_OPENING = b'{"id":"'
_ID = re.compile(rb'\{"id": ?"([ !#-\[\]-~]*)(?=")')  # without escapes, and ASCII: as JSON, it means itself
_VALUE_DEPENDENT = "bOSU"
"""Kinds of NumPy's types whose bytes must be looked at."""
_SCALAR = (str, int, float, type(None))


class _Plan(msgspec.Struct, frozen=True, eq=False):
    """A request but for its values and id. Its inputs, which take ``size`` bytes in all, begin so far after the JSON."""

    inputs: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]
    size: int
    outputs: tuple[str, ...] | None
    parameters: dict[str, Any]
    reply: Reply | None


class KnownHeaders:
    """Plans by the JSON of binary requests, but for the id where that comes first: clients send the same ones over and over."""

    def __init__(self) -> None:
        self._plans: dict[bytes, _Plan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def decode(
        self, body: bytes | bytearray, header_length: int, model: str, version: str | None, route_key: str | None
    ) -> tuple[InferRequest, Reply | None] | None:
        """The request and how it wants its answer, ``None`` if its JSON is not known or its size is wrong."""
        if header_length > MAX_HEADER_BYTES:
            return None
        key, identity = _split(bytes(body[:header_length]))
        plan = self._plans.get(key)
        if plan is None or plan.size != len(body) - header_length:
            return None
        inputs: dict[str, Tensor] = {}
        for name, dtype, shape, start in plan.inputs:
            array: Tensor = np.ndarray(shape, dtype, body, header_length + start)
            inputs[name] = array if array.flags.aligned else array.copy()  # engines may need that
        parameters = plan.parameters.copy()
        return InferRequest(model, inputs, version, identity, plan.outputs, parameters, route_key), plan.reply

    def remember(self, body: bytes | bytearray, header_length: int, request: InferRequest, reply: Reply | None) -> None:
        """Keep what ``body`` was understood as, if that depends on nothing but its JSON, the values and the id."""
        if header_length > MAX_HEADER_BYTES or not _depends_on_nothing_else(request, reply):
            return
        key, identity = _split(bytes(body[:header_length]))
        rest = key.removeprefix(_OPENING)
        if identity != request.id or b'"id"' in rest or b"\\" in rest:  # of two ids, the last one counts
            return
        inputs, start = [], 0
        for name, tensor in request.inputs.items():
            if not tensor.size or tensor.dtype.kind in _VALUE_DEPENDENT:
                return
            inputs.append((name, tensor.dtype, tensor.shape, start))
            start += tensor.nbytes
        if start != len(body) - header_length:  # some input is elsewhere: in the JSON, or in shared memory
            return
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = _Plan(tuple(inputs), start, request.outputs, request.parameters.copy(), reply)


def _split(header: bytes) -> tuple[bytes, str | None]:
    """What of it repeats, and the id."""
    if not header.startswith(b'{"id"'):
        return header, None
    found = _ID.match(header)
    if found is None:
        return header, None
    return _OPENING + header[found.end() :], found[1].decode() or None


def _depends_on_nothing_else(request: InferRequest, reply: Reply | None) -> bool:
    if not all(isinstance(value, _SCALAR) for value in request.parameters.values()):
        return False
    return reply is None or not any(option.classification or option.region for option in reply.options.values())
