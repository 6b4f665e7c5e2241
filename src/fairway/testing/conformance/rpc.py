"""The gRPC side of a server, through the reference client."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fairway.testing.conformance.case import NotOffered, Unmet, expect_equal
from fairway.testing.conformance.tensors import Tensor, from_bytes, tensor, to_bytes

if TYPE_CHECKING:
    from fairway.testing.conformance.target import Target

SERVICE = "inference.GRPCInferenceService"
_UNARY_STREAM, _SHOWN = "ModelStreamInfer", 400
CALLERS_FAULT = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE", "ALREADY_EXISTS"})
"""With RESOURCE_EXHAUSTED and UNIMPLEMENTED: what says that asking again in the same way is of no use."""

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Where typed contents lie; FP16 and BF16 have none."""


@dataclass(frozen=True)
class Answer:
    """A call's end: ``message`` where ``status`` is OK."""

    status: str
    text: str
    message: Any
    strict: bool = False


class Rpc:
    """Calls of one server.

    Parameters
    ----------
    address : str
        ``host:port``.
    target : Target
        Is told what was sent and what came.
    """

    def __init__(self, address: str, target: Target) -> None:
        try:
            import grpc
        except ImportError:
            raise NotOffered("the gRPC cases need grpcio: pip install grpcio") from None
        from fairway.serving.transports.grpc.messages import message, service_methods

        self._grpc: Any = grpc
        self._target = target
        self._message = message
        self._methods = dict(service_methods(SERVICE))
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_http_proxy", 0),
        ]
        self.channel: Any = grpc.insecure_channel(address, options=options)

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def make(self, name: str, fields: Mapping[str, Any] | None = None) -> Any:
        """A message of the protocol, such as ``ModelInferRequest``, from JSON-like fields."""
        from google.protobuf.json_format import ParseDict

        return ParseDict(dict(fields or {}), self._message(f"inference.{name}")())

    def call(
        self,
        method: str,
        request: Any = None,
        *,
        timeout_s: float | None = None,
        compression: Any = None,
        service: str = SERVICE,
    ) -> Answer:
        """One unary call; ``request``: a message, or its fields."""
        from fairway.serving.transports.grpc.messages import service_methods

        asked, answered = service_methods(service)[method]
        sent = request if hasattr(request, "SerializeToString") else self._fields(asked, request)
        return self.raw(
            f"/{service}/{method}", sent.SerializeToString(), answered.FromString, timeout_s, compression, str(sent)
        )

    def raw(
        self,
        path: str,
        data: bytes,
        read: Any = bytes,
        timeout_s: float | None = None,
        compression: Any = None,
        shown: str = "",
    ) -> Answer:
        """One unary call of any bytes."""
        self._target.note(f"{path} {shown[:_SHOWN] or data[:_SHOWN]!r}")
        stub = self.channel.unary_unary(path, response_deserializer=read)
        try:
            message = stub(data, timeout=timeout_s or self._target.timeout_s, compression=compression)
        except self._grpc.RpcError as error:
            return self._noted(Answer(error.code().name, error.details() or "", None, self._target.strict))
        return self._noted(Answer("OK", "", message, self._target.strict))

    def stream(self, requests: Iterable[Any]) -> Iterator[Any]:
        """``ModelStreamInfer``: the answers as they come; an error that ends the stream is :class:`Unmet`."""
        _, answered = self._methods[_UNARY_STREAM]
        stub = self.channel.stream_stream(
            f"/{SERVICE}/{_UNARY_STREAM}", lambda sent: sent.SerializeToString(), answered.FromString
        )
        self._target.note(f"/{SERVICE}/{_UNARY_STREAM}")
        try:
            for message in stub(iter(requests), timeout=self._target.timeout_s):
                self._target.came = str(message)[:_SHOWN]
                yield message
        except self._grpc.RpcError as error:
            raise Unmet(f"the stream ended with {error.code().name}: {error.details()}") from None

    def request(
        self, model: str, inputs: Sequence[Tensor], *, version: str = "", wanted: Sequence[str] = (), **fields: Any
    ) -> Any:
        """A ``ModelInferRequest`` with raw contents."""
        made = self.make(
            "ModelInferRequest",
            {
                "modelName": model,
                "modelVersion": version,
                "inputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in inputs],
                "outputs": [{"name": name} for name in wanted],
                **fields,
            },
        )
        made.raw_input_contents.extend(to_bytes(t) for t in inputs)
        return made

    def infer(self, model: str, inputs: Sequence[Tensor], **more: Any) -> Answer:
        """``ModelInfer`` with raw contents; see :meth:`request`."""
        return self.call("ModelInfer", self.request(model, inputs, **more))

    def services(self) -> list[str] | None:
        """What server reflection lists; ``None`` without reflection."""
        from fairway.serving.transports.grpc.messages import REFLECTIONS, service_methods

        for service in REFLECTIONS:
            asked, answered = service_methods(service)["ServerReflectionInfo"]
            path = f"/{service}/ServerReflectionInfo"
            stub = self.channel.stream_stream(path, lambda sent: sent.SerializeToString(), answered.FromString)
            self._target.note(path)
            try:
                (reply,) = stub(iter([asked(list_services="")]), timeout=self._target.timeout_s)
            except self._grpc.RpcError:
                continue
            return [found.name for found in reply.list_services_response.service]
        return None

    def _fields(self, kind: Any, fields: Any) -> Any:
        from google.protobuf.json_format import ParseDict

        return ParseDict(dict(fields or {}), kind())

    def _noted(self, answer: Answer) -> Answer:
        self._target.came = (
            f"{answer.status} {answer.text}"[:_SHOWN] if answer.text else f"{answer.status} {answer.message}"[:_SHOWN]
        )
        return answer


def granted(answer: Answer) -> Any:
    """The message of a call that must succeed."""
    if answer.status != "OK":
        raise Unmet(f"a valid request was answered with {answer.status}: {answer.text}")
    return answer.message


def outputs(message: Any) -> dict[str, Tensor]:
    """The outputs of a ``ModelInferResponse`` by name, from raw contents (one for each output) or typed ones."""
    if not message.raw_output_contents:
        return {out.name: _typed(out) for out in message.outputs}
    expect_equal(len(message.raw_output_contents), len(message.outputs), "the number of raw_output_contents")
    pairs = zip(message.outputs, message.raw_output_contents, strict=True)
    return {out.name: from_bytes(out.name, out.datatype, list(out.shape), raw) for out, raw in pairs}


def _typed(output: Any) -> Tensor:
    field = CONTENTS.get(output.datatype)
    if field is None:
        raise Unmet(f"output {output.name!r} is {output.datatype}, which has no typed contents")
    values = list(getattr(output.contents, field))
    count = math.prod(output.shape)
    if len(values) != count:
        raise Unmet(f"output {output.name!r} has {len(values)} values, but its shape is {list(output.shape)}")
    return tensor(output.name, output.datatype, values, list(output.shape))


def refused(answer: Answer, *statuses: str) -> str:
    """The text of a call that must fail: with one of ``statuses``, or in strict cases with one that blames the caller."""
    if answer.status == "OK":
        raise Unmet("answered OK, not an error")
    if statuses and answer.status not in statuses:
        raise Unmet(f"answered {answer.status}, not {' or '.join(statuses)}")
    blamed = CALLERS_FAULT | {"RESOURCE_EXHAUSTED", "UNIMPLEMENTED"}
    if answer.strict and not statuses and answer.status not in blamed:
        raise Unmet(f"answered {answer.status}, which blames the server")
    if not answer.text:
        raise Unmet(f"{answer.status} says nothing about what was wrong")
    return answer.text
