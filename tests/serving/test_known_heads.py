"""A head that was read before is not parsed again. Nobody can tell: the answers are those of a server that parses all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from fairway.core.messages import InferRequest, InferResponse
from fairway.serving.inference import InferenceCore, Outcome
from fairway.serving.settings import ServeSettings
from fairway.serving.telemetry import Telemetry
from fairway.serving.tracer import Tracer
from fairway.serving.transports.fastlane import FairwayProtocol, make_protocol
from tests.serving.conftest import request_of

BODY = json.dumps(request_of()).encode()
OTHER = json.dumps(request_of(name="other")).encode()


def head(
    length: int, *, path: bytes = b"/v2/models/linear/infer", extra: bytes = b"", method: bytes = b"POST"
) -> bytes:
    return b"%s %s HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n" % (method, path, extra, length)


CALLER = b"traceparent: 00-%032x-%016x-01\r\n"

MESSAGES = [
    head(len(BODY)) + BODY,
    head(len(OTHER)) + OTHER,
    head(len(BODY), path=b"/v2/models/linear/versions/2/infer") + BODY,
    head(len(BODY), extra=b"fairway-route-key: k\r\n") + BODY,
    head(0),
    head(4) + b"POST",
    head(len(BODY), extra=b"connection: close\r\n") + BODY,
    head(len(BODY) + 1) + BODY + b"\n",
    head(2 * len(BODY)) + BODY,  # swallows the start of what follows
    head(len(BODY)).replace(b"\r\n\r\n", b"\n\n") + BODY,
    head(len(BODY)).replace(b"\r\n", b"\n") + BODY,
    b"\r\n\r\n" + head(len(BODY)) + BODY,
    b"POST /v2/models/linear/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (len(BODY), BODY),
    head(len(BODY), extra=b"content-encoding: gzip\r\n") + BODY,
    head(10**9),
    b"?",
    head(len(BODY), extra=CALLER % (1, 2)) + BODY,
    head(len(BODY), extra=CALLER % (3, 4) + b"tracestate: a=b,c=d\r\n") + BODY,
    head(len(OTHER), extra=b"tracestate: a=b\r\n" + CALLER.title() % (5, 6)) + OTHER,
    head(len(BODY), extra=CALLER % (7, 8) + b"fairway-route-key: k\r\n") + BODY,
    head(len(BODY), extra=b"a: b\r\n" + CALLER % (9, 9) + b" c: d\r\n") + BODY,  # a folded line
    head(len(BODY), extra=CALLER % (9, 9) + CALLER % (1, 9)) + BODY,
    head(len(BODY), extra=CALLER.upper() % (9, 9)) + BODY,
    head(len(BODY), extra=CALLER % (9, 9)).replace(b"\r\n", b"\n") + BODY,
    b"POST /v2/models/linear/infer\r\n" + CALLER % (1, 1) + b" HTTP/1.1\r\n\r\n",
]


class Transport:
    """Remembers what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Core:
    """Answers with what it was asked, in a later turn of the loop."""

    tracer: Tracer | None = None

    def __init__(self) -> None:
        self.telemetry = Telemetry()

    def submit(self, request: InferRequest, done: Callable[[Outcome], None], *_: object) -> None:
        asked = {"version": request.version, "key": request.route_key}
        response = InferResponse(request.model, "1", request.inputs, parameters=asked)
        asyncio.get_running_loop().call_soon(done, response)


class Parsing(FairwayProtocol):
    """Never remembers a head."""

    def _remember(self, said: bytes, head: Any) -> None:
        pass


def protocols() -> tuple[type[FairwayProtocol], type[FairwayProtocol]]:
    settings, core = ServeSettings(access_log=False, max_body_bytes=2**20), cast(InferenceCore, Core())
    remembering = make_protocol(core, settings, stopping=lambda: False)
    return remembering, type("Bound", (Parsing, make_protocol(core, settings, stopping=lambda: False)), {})


async def answers(
    protocol: type[FairwayProtocol], connections: Sequence[Sequence[bytes]], *, patient: bool = True
) -> list[tuple[bytes, bool]]:
    """What each connection gets for the pieces it receives, and whether the server closed it.

    ``patient``: a piece is sent when those before it are answered.
    """
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(cast(Any, lambda: None), log_config=None)
    config.load()
    found = []
    for pieces in connections:
        transport = Transport()
        connection = protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        connection.connection_made(cast(Any, transport))
        for piece in pieces:
            if transport.closed:
                break
            connection.data_received(piece)
            if patient:
                await _settled()
        await _settled()
        found.append((transport.written, transport.closed))
        connection.connection_lost(None)
    return found


async def _settled() -> None:
    """Every answer that can be given is given."""
    for _ in range(4 * len(MESSAGES)):
        await asyncio.sleep(0)


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    """A few messages, cut where they end, anywhere, or not at all."""
    parts = draw(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=6))
    stream = b"".join(parts)
    how = draw(st.sampled_from(["messages", "whole", "anywhere"]))
    if how == "messages":
        return parts
    cuts = draw(st.lists(st.integers(1, len(stream)), max_size=4, unique=True)) if how == "anywhere" else []
    edges = [0, *sorted(cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


@settings(deadline=None)
@given(st.lists(pieces(), min_size=1, max_size=5), st.booleans())
def test_a_known_head_gets_the_answer_that_parsing_it_gives(connections: list[list[bytes]], patient: bool) -> None:
    remembering, parsing = protocols()
    asyncio.run(answers(remembering, [MESSAGES[:1], MESSAGES[1:2]]))
    found = asyncio.run(answers(remembering, connections, patient=patient))
    assert found == asyncio.run(answers(parsing, connections, patient=patient))


def test_a_repeated_head_is_remembered_and_what_only_looks_like_one_is_not() -> None:
    remembering, _ = protocols()
    asyncio.run(answers(remembering, [[message] for message in MESSAGES]))
    assert set(remembering.heads) == {
        message.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" for message in MESSAGES[:16] if message.startswith(b"POST /")
    } - {
        head(10**9),
        head(len(BODY), extra=b"connection: close\r\n"),
        MESSAGES[9].partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
        MESSAGES[10].partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
        MESSAGES[12].partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    } | {head(len(BODY), extra=CALLER.upper() % (9, 9))}  # the usual ones are cut out of theirs


def test_heads_that_never_repeat_take_no_more_than_bounded_memory() -> None:
    remembering, _ = protocols()
    once = [[head(len(BODY), extra=b"x-request-id: %d\r\n" % number) + BODY for number in range(3000)]]
    asyncio.run(answers(remembering, [once[0]]))
    assert 0 < len(remembering.heads) <= 1024
