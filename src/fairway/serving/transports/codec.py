"""Infer requests of whatever form REST has, and their answers: what both lanes use beyond plain JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fairway.core.messages import InferRequest, InferResponse
from fairway.serving.inference import InferenceCore
from fairway.serving.settings import ServeSettings
from fairway.serving.shared_memory import SharedMemory
from fairway.serving.transports.elsewhere import BINARY_HEADER, Elsewhere
from fairway.serving.transports.pinning import pinned
from fairway.serving.transports.v2 import Buffer, Reply
from fairway.serving.transports.v2binary import Answer, decode_binary, encode_reply, header_length, raw_input
from fairway.serving.transports.v2json import decode_request, encode_response
from fairway.serving.transports.v2known import KnownHeaders

_BINARY = BINARY_HEADER.encode()
_JSON = b"application/json"
_OCTETS = b"application/octet-stream"
_ALL_BINARY = Reply(binary=True)


class Codec:
    """Decodes requests and encodes answers.

    Parameters
    ----------
    core : InferenceCore
        Says what the model takes and its labels, where a request leaves that to the server.
    settings : ServeSettings
    memory : SharedMemory or None
        ``None``: requests that use it are refused.
    """

    def __init__(self, core: InferenceCore, settings: ServeSettings, memory: SharedMemory | None = None) -> None:
        self._core = core
        self._limit = settings.max_body_bytes
        self._memory = memory
        self.elsewhere = Elsewhere(memory)
        self._known = KnownHeaders()

    def decode(
        self,
        body: bytes | bytearray,
        headers: Mapping[bytes, bytes],
        model: str,
        version: str | None,
        route_key: str | None,
    ) -> tuple[InferRequest, Reply | None]:
        """A request from its body, decompressed. ``headers`` have names in lower case.

        Raises
        ------
        FairwayError
            Saying what is wrong: with the form, or the model's name where the form depends on the model.
        """
        length = headers.get(_BINARY)
        if length is None:
            request, reply = decode_request(body, model, version, route_key, self.elsewhere)
        elif json_size := header_length(length):
            return self.decode_binary(body, json_size, model, version, route_key)
        else:
            return self._raw(body, model, version, route_key)
        return self.labelled(request, reply)

    def decode_binary(
        self, body: bytes | bytearray, json_size: int, model: str, version: str | None, route_key: str | None
    ) -> tuple[InferRequest, Reply | None]:
        """As :meth:`decode`, of a body that begins with ``json_size`` bytes of JSON, more than 0."""
        found = self._known.decode(body, json_size, model, version, route_key)
        if found is not None:
            return found
        request, reply = decode_binary(body, json_size, model, version, route_key, self._memory)
        self._known.remember(body, json_size, request, reply)
        return self.labelled(request, reply)

    def labelled(self, request: InferRequest, reply: Reply | None) -> tuple[InferRequest, Reply | None]:
        """Classes are told with the labels of the version that answers, so it is chosen here."""
        if reply is None or not reply.classifies:
            return request, reply
        request, known = pinned(self._core.models, request, reply.options.values())
        return request, msgspec.structs.replace(reply, labels=known.labels, batched=known.batching)

    def encode(
        self, response: InferResponse, reply: Reply | None
    ) -> tuple[dict[bytes, bytes], bytes, Sequence[Buffer]]:
        """An answer's headers, and its body as its beginning and the other pieces, not compressed."""
        answer = Answer(encode_response(response)) if reply is None else encode_reply(response, reply, self._memory)
        headers = {b"content-type": _JSON}
        blobs: Sequence[Buffer] = ()
        if answer.blobs is not None:
            blobs = answer.blobs
            headers = {b"content-type": _OCTETS, _BINARY: b"%d" % len(answer.header)}
        return headers, answer.header, blobs

    def _raw(
        self, body: bytes | bytearray, model: str, version: str | None, route_key: str | None
    ) -> tuple[InferRequest, Reply]:
        """The body is a tensor: the model says which. Its answer is all binary."""
        known = self._core.models.describe(model, version, route_key)
        inputs = raw_input(body, known.inputs)
        return InferRequest(model, inputs, known.version, route_key=route_key), _ALL_BINARY
