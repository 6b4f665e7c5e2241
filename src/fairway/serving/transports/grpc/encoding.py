""":class:`InferResponse` to ``ModelInferResponse``, its values always raw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fairway.core.errors import InferenceFailed
from fairway.core.messages import InferResponse
from fairway.core.tensors import Datatype, Tensor
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.grpc import messages
from fairway.serving.transports.grpc.wireform import delimited, head, varint
from fairway.serving.transports.v2 import OutputOptions, classify, tensor_to_bytes

_MAX_KNOWN = 1024
_SMALL_BYTES = 65536
_NAMES = {kind.dtype: kind.value for kind in Datatype if kind is not Datatype.BYTES}
_EMPTY = delimited(6, b"")


class Encoder:
    """Writes answers: by hand, from pieces that are made once per model and per output's shape.

    Parameters
    ----------
    shared_memory : SharedMemory or None
        Where outputs with a region go.
    """

    def __init__(self, shared_memory: SharedMemory | None = None) -> None:
        self._shared_memory = shared_memory
        self._heads: dict[tuple[str, str], bytes] = {}
        self._known: dict[tuple[str, np.dtype[Any], tuple[int, ...]], tuple[bytes, bytes]] = {}

    def encode(self, response: InferResponse, extra: bytes = b"") -> bytes:
        """The answer's bytes. ``extra``: fields in protobuf's form to add."""
        parts = [self._head(response), extra]
        values: list[Any] = []
        for name, tensor in response.outputs.items():
            known = self._known.get((name, tensor.dtype, tensor.shape))
            if known is not None:
                parts.append(known[0])
                values.append(known[1])
                values.append(tensor.tobytes() if tensor.nbytes <= _SMALL_BYTES else tensor_to_bytes(tensor))
            else:
                self._add(name, tensor, parts, values)
        return b"".join(parts + values)

    def encode_special(
        self,
        response: InferResponse,
        extra: bytes = b"",
        *,
        options: Sequence[OutputOptions],
        labels: Sequence[str] = (),
        batched: bool = True,
    ) -> bytes:
        """As :meth:`encode`, with outputs as classes or in shared memory.

        Raises
        ------
        InvalidRequest
            If an output does not fit its region.
        """
        asked = {option.name: option for option in options}
        parts = [self._head(response), extra]
        values: list[Any] = []
        for name, tensor in response.outputs.items():
            option = asked[name]
            if option.classification:
                tensor = classify(tensor, option.classification, labels, batched=batched)  # noqa: PLW2901
            if option.region is None:
                self._add(name, tensor, parts, values)
                continue
            assert self._shared_memory is not None  # the decoder has refused it
            data = tensor_to_bytes(tensor)
            self._shared_memory.write(option.region, data)
            parts.append(_described(name, tensor, _in_region(option.region.name, len(data))))
            values.append(_EMPTY)
        return b"".join(parts + values)

    def _head(self, response: InferResponse) -> bytes:
        key = (response.model, response.version)
        made = self._heads.get(key)
        if made is None:
            if len(self._heads) >= _MAX_KNOWN:
                self._heads.clear()
            made = delimited(1, response.model.encode()) + delimited(2, response.version.encode())
            self._heads[key] = made
        if response.id:
            made += delimited(3, response.id.encode())
        return made + parameter_fields(response.parameters) if response.parameters else made

    def _add(self, name: str, tensor: Tensor, parts: list[bytes], values: list[Any]) -> None:
        described = _described(name, tensor)
        data = tensor_to_bytes(tensor)
        begins = head(6, len(data))
        parts.append(described)
        values.append(begins)
        values.append(data)
        if tensor.dtype in _NAMES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[name, tensor.dtype, tensor.shape] = (described, begins)


def parameter_fields(parameters: dict[str, Any]) -> bytes:
    """An answer's ``parameters``. Raises :class:`InferenceFailed` where the protocol has no kind for a value."""
    made = messages.message("inference.ModelInferResponse")()
    for name, value in parameters.items():
        setattr(made.parameters[name], _kind(name, value), value)
    fields: bytes = made.SerializeToString()
    return fields


def _kind(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "bool_param"
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return "uint64_param" if value >= 2**63 else "int64_param"
    if isinstance(value, str):
        return "string_param"
    if isinstance(value, float):
        return "double_param"
    raise InferenceFailed(f"parameter {name!r} of the answer is {value!r}, which gRPC cannot carry")


def _described(name: str, tensor: Tensor, extra: bytes = b"") -> bytes:
    """One ``InferOutputTensor``."""
    shape = b"".join(map(varint, tensor.shape))
    datatype = _NAMES.get(tensor.dtype, "BYTES")
    fields = delimited(1, name.encode()) + delimited(2, datatype.encode())
    if shape:
        fields += delimited(3, shape)
    return delimited(5, fields + extra)


def _in_region(region: str, size: int) -> bytes:
    output = messages.message("inference.ModelInferResponse.InferOutputTensor")()
    output.parameters["shared_memory_region"].string_param = region
    output.parameters["shared_memory_byte_size"].int64_param = size
    fields: bytes = output.SerializeToString()
    return fields
